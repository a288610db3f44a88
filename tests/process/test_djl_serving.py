"""`stoker djl-serving`: what scripts of the peer type, see and are answered (12)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from facts import DEADLINE_S, wait_until

pytestmark = pytest.mark.slow

HANDLER = """
from djl_python import Output

def handle(inputs):
    return None if inputs.is_empty() else Output().add(inputs.get_as_string().upper())
"""


class Installation:
    """A home of the peer's, with one model in its store."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "run").mkdir(mode=0o700)
        (home / "models" / "upper").mkdir(parents=True)
        (home / "models" / "upper" / "model.py").write_text(HANDLER)
        (home / "conf").mkdir()
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.environ = {
            **kept,
            "HOME": str(home),
            "RUNTIME_DIRECTORY": str(home / "run"),
            "CACHE_DIRECTORY": str(home / "cache"),
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "stoker.cli", "djl-serving", *words]

    def configure(self, *lines: str) -> None:
        (self.home / "conf" / "config.properties").write_text("\n".join(lines))

    def ask(self, path: str, body: bytes | None = None) -> Any:
        addresses = json.loads((self.home / "run" / "addresses.json").read_text())
        with urllib.request.urlopen(f"{addresses['management']}{path}", body, DEADLINE_S) as answer:
            return answer.read()


@pytest.fixture
def djl() -> Iterator[Installation]:
    # Short: the name of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="djl-", dir="/tmp") as folder:
        yield Installation(Path(folder))


def test_one_command_serves_everything_in_the_store(djl: Installation) -> None:
    """
    File, variables and store as the peer's start scripts have them; the model is loaded
    at start, and the only one there is.
    """
    djl.configure("model_store=models", "job_queue_size=9", "planet=9")
    addresses = {
        "SERVING_INFERENCE_ADDRESS": "http://127.0.0.1:0",
        "SERVING_MANAGEMENT_ADDRESS": "http://127.0.0.1:0",
    }
    process = subprocess.Popen(
        djl.command(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=djl.home,
        env={**djl.environ, **addresses},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        assert next(lines) == b"stoker: unknown and ignored: planet\n"
        assert next(lines) == b"Model server started.\n"

        def is_healthy() -> bool:
            described: dict[str, Any] = json.loads(djl.ask("/models/upper"))
            return described["status"] == "Healthy" and described["loadedAtStartup"]

        wait_until(is_healthy, "the model of the store is healthy")
        described = json.loads(djl.ask("/models/upper"))
        assert (described["minWorkers"], described["maxWorkers"]) == (1, 1)
        assert "version" not in described
    finally:
        process.terminate()
        assert process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-f", "none"), "Configuration file not found: none\n"),
        (("-i", "ai.djl:x"), "-i installs Java engines, which stoker does without: ai.djl:x\n"),
        (("-s", "none"), "stoker: Model store path is not found: none\n"),
    ],
)
def test_what_cannot_be_is_said_on_standard_output(
    djl: Installation, words: tuple[str, ...], said: str
) -> None:
    """
    Exit code 1, as the peer's.
    """
    done = subprocess.run(
        djl.command(*words),
        capture_output=True,
        text=True,
        check=False,
        cwd=djl.home,
        env=djl.environ,
        timeout=DEADLINE_S,
    )

    assert done.returncode == 1
    assert done.stdout.startswith(said)
