"""Every curl line of README.md, run as it stands against a live server.

A fenced `sh` block may hold curl lines; if a fenced `json` block follows it,
that is what the block's last curl line must answer.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
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


README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
LINES = curl_lines(README)


@pytest.fixture(scope="module")
def server(digits_folder: Path) -> Iterator[Any]:
    """What `make run` leaves running, on free ports."""
    from local_server import LocalServer

    with LocalServer(model_store=digits_folder / "model-store") as running:
        running.register(url="digits.mar", batch_size=8, max_batch_delay=10)
        yield running


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


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=[line.command[:70] for line in LINES])
def test_readme_line_answers_as_shown(line: Line, server: Any) -> None:
    """
    The first thing a newcomer pastes must work, and look like the page.
    """
    status, body = run(line.command, server)

    assert 200 <= status < 300, body
    if line.answer is not None:
        assert_alike(json.loads(line.answer), json.loads(body))


def test_readme_shows_the_handler_that_is_served() -> None:
    """
    The ten lines on the page are the ten lines of the example.
    """
    source = (CHECKOUT / "examples" / "digits" / "handler.py").read_text(encoding="utf-8")

    shown = [text for kind, text in BLOCK.findall(README) if kind == "python"]

    assert shown
    assert shown[0].strip() in source


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """
    Relative links rot silently.
    """
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)

    assert targets
    assert [target for target in targets if not (CHECKOUT / target).exists()] == []


def test_the_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    """
    A renamed target must take the page along.
    """
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")

    named = set(re.findall(r"\bmake ([a-z-]+)", README))

    assert {"run", "test"} <= named
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []
