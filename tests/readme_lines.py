"""The curl lines of a page for newcomers, and how they are run against a live server.

A fenced `sh` block may hold curl lines; if a fenced `json` block follows it,
that is what the block's last curl line must answer.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Where a person's server listens, and which listener that is.
PORTS = {"8080": "inference", "8081": "management", "8082": "metrics"}
#: Values under these names differ from run to run; only their types are compared.
VARYING = {"startTime", "memoryUsage", "pid", "probability", "id", "gpuUsage"}
CURL_TIMEOUT_S = 60


class Line(NamedTuple):
    """One curl line; `answer` is the JSON text shown below it, if any."""

    command: str
    answer: str | None


def curl_lines(markdown: str) -> list[Line]:
    lines: list[Line] = []
    blocks = BLOCK.findall(markdown)
    for (kind, text), (next_kind, next_text) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind != "sh":
            continue
        commands = [
            command
            for command in text.replace("\\\n", " ").splitlines()
            if command.startswith("curl ")
        ]
        lines += [Line(command, None) for command in commands]
        if commands and next_kind == "json":
            lines[-1] = Line(commands[-1], next_text)
    return lines


def run(command: str, server: Any) -> tuple[int, str]:
    """Run a curl line from the checkout; returns the HTTP status and the body."""
    for port, listener in PORTS.items():
        address = server.addresses.get(listener, "http://unserved")
        command = re.sub(rf"http://(127\.0\.0\.1|localhost):{port}\b", address, command)
    arguments = shlex.split(command)
    finished = subprocess.run(
        [*arguments, "--silent", "--show-error", "--write-out", "\n%{http_code}"],
        check=False,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=CURL_TIMEOUT_S,
    )
    assert finished.returncode == 0, finished.stderr
    body, _, status = finished.stdout.rpartition("\n")
    return int(status), body


def assert_alike(shown: Any, real: Any, name: str = "") -> None:
    """Equal, but for values that no page can know."""
    if name in VARYING:
        assert type(real) in (type(shown), int, float), name
    elif isinstance(shown, dict):
        assert isinstance(real, dict)
        assert list(shown) == list(real)
        for key in shown:
            assert_alike(shown[key], real[key], key)
    elif isinstance(shown, list):
        assert isinstance(real, list)
        assert len(shown) == len(real)
        for mine, theirs in zip(shown, real, strict=True):
            assert_alike(mine, theirs, name)
    else:
        assert shown == real, name
