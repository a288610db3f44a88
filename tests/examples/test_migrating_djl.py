"""Every command of docs/migrating-from-djl-serving.md, in order, on such an installation.

A fenced `sh` block is run in one shell that goes on from block to block; if a
`text` block follows, that is what it must print.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from facts import DEADLINE_S

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "migrating-from-djl-serving.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
UPPER = """
from djl_python import Output

def handle(inputs):
    return None if inputs.is_empty() else Output().add(inputs.get_as_string().upper())
"""


@pytest.fixture
def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


@pytest.fixture
def home(blocks: list[tuple[str, str]]) -> Iterator[Path]:
    # Short: the name of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="djl-", dir="/tmp") as folder:
        found = Path(folder)
        for name in ("conf", "run", "models/upper"):
            (found / name).mkdir(mode=0o700, parents=True)
        config = next(text for kind, text in blocks if kind == "properties")
        (found / "conf" / "config.properties").write_text(config)
        (found / "models" / "upper" / "model.py").write_text(UPPER)
        (found / "models" / "upper" / "serving.properties").write_text("engine=Python\n")
        yield found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_page_works_as_it_stands(home: Path, blocks: list[tuple[str, str]]) -> None:
    """
    A guide that does not work is worse than none.
    """
    port = free_port()
    script = [f'stoker() {{ exec {sys.executable} -P -m stoker.cli "$@"; }}', f"cd {home}"]
    expected = ""
    for kind, text in blocks:
        if kind == "sh":
            script.append(text)
        elif kind == "text":
            expected += text
    command = "\n".join(script).replace("/srv/djl", str(home)).replace(":8080", f":{port}")
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    shell = subprocess.Popen(
        ["bash", "-e", "-c", f"trap 'kill %1 && wait %1' EXIT\n{command}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
        env={
            **kept,
            "HOME": str(home),
            "RUNTIME_DIRECTORY": str(home / "run"),
            "CACHE_DIRECTORY": str(home / "cache"),
            "SERVING_INFERENCE_ADDRESS": f"http://127.0.0.1:{port}",
            "SERVING_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{port}",
            "no_proxy": "*",
        },
        start_new_session=True,
    )
    try:
        said, complaints = shell.communicate(timeout=3 * DEADLINE_S)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        raise

    assert said.decode() == expected, complaints.decode()
