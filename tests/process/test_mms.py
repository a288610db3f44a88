"""`stoker mms`: what scripts of the peer type, see and are answered (contracts/mms.md 8.2)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from facts import DEADLINE_S, wait_until

from stoker.cli.model_server_pid import NAME, ModelServerPid
from stoker.process_start import start_ticks

pytestmark = pytest.mark.slow

Result = subprocess.CompletedProcess[str]
HANDLER = """
import os

def handle(data, context):
    return ["hello " + os.environ["MMS_DECODE_INPUT_REQUEST"]] * len(data or [])
"""
MANIFEST = {
    "modelServerVersion": "1.0",
    "model": {"modelName": "hello", "handler": "hello.py:handle"},
}


class Installation:
    """A folder as an operator of the peer has one, with its own temporary folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "tmp").mkdir(mode=0o700)
        (home / "store").mkdir()
        with zipfile.ZipFile(home / "store" / "hello.mar", "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps(MANIFEST))
            archive.writestr("hello.py", HANDLER)
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.environ = {**kept, "HOME": str(home), "TMPDIR": str(home / "tmp")}

    def __call__(self, *words: str) -> Result:
        """The answer goes to files: a server in the background keeps the streams open."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "stoker.cli", "mms", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                check=False,
                cwd=self.home,
                env=self.environ,
                timeout=3 * DEADLINE_S,
            )
            out.seek(0)
            err.seek(0)
            return Result(done.args, done.returncode, out.read(), err.read())

    def configure(self, *lines: str) -> None:
        free = [f"{api}_address=http://127.0.0.1:0" for api in ("inference", "management")]
        text = "\n".join([*free, "metrics_address=http://127.0.0.1:0", *lines, ""])
        (self.home / "config.properties").write_text(text)

    def ask(self, api: str, path: str, body: bytes | None = None) -> bytes:
        folder = self.home / "tmp" / f"stoker-{os.geteuid()}"
        address = json.loads((folder / "addresses.json").read_text())[api]
        with urllib.request.urlopen(f"{address}{path}", body, DEADLINE_S) as answer:
            return bytes(answer.read())


@pytest.fixture
def mms() -> Iterator[Installation]:
    # Short: the name of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mms-", dir="/tmp") as home:
        installation = Installation(Path(home))
        yield installation
        pid = ModelServerPid(installation.home / "tmp").find()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: start_ticks(pid) is None, "the server has stopped")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--stop"], 0, "Model server is not currently running.\n"),
        (["--model-store", "gone"], 1, "--model-store directory not found: gone\n"),
        (["--mms-config", "gone"], 1, "--mms-config file not found: gone\n"),
        (["--log-config", "gone.xml"], 1, "--log-config file not found: gone.xml\n"),
        (["--models", "a.mar"], 1, "--model-store is required to load model locally.\n"),
        (["--models", "a=a.mar"], 1, "--model-store is required to load model locally.\n"),
        (
            ["--mms-config", "sagemaker"],
            1,
            "Invalid configuration: Invalid Environment Variable SAGEMAKER_BIND_TO_PORT\n",
        ),
    ],
)
def test_every_message_is_the_peers(mms, words, code, said):
    """
    Scripts look for these texts on standard output and for these exit codes.
    """
    result = mms(*words)

    assert (result.returncode, result.stdout) == (code, said)


def test_start_and_stop_are_the_peers(mms):
    """
    In the background, in its dialect, with one pid file; a second start is refused.
    """
    mms.configure("default_workers_per_model=1")

    started = mms("--start", "--model-store", "store", "--models", "hello.mar")
    again = mms("--start")
    described = json.loads(mms.ask("management", "/models/hello"))
    wait_until(
        lambda: b'"Healthy"' in mms.ask("inference", "/ping"), "the worker that it wants is there"
    )
    answer = mms.ask("inference", "/predictions/hello", b"x")
    stopped = mms("--stop")

    assert (started.returncode, started.stdout) == (0, "Model server started.\n")
    assert (again.returncode, again.stdout) == (
        1,
        "Model server is already running, please use multi-model-server --stop to stop MMS.\n",
    )
    assert described["modelName"] == "hello"
    assert described["loadedAtStartup"] is True
    assert answer == b"hello true"
    assert (stopped.returncode, stopped.stdout) == (0, "Model server stopped.\n")
    assert not (mms.home / "tmp" / NAME).exists()
    # As the peer: logs lie where it is started.
    assert (mms.home / "logs").is_dir()


def test_a_pid_file_without_its_process_is_removed(mms):
    """
    After a crash the next start does not need a hand.
    """
    mms.configure()
    (mms.home / "tmp" / NAME).write_text("999999999")

    started = mms("--start")
    stopped = mms("--stop")

    assert started.stdout == "Removing orphan pid file.\nModel server started.\n"
    assert stopped.stdout == "Model server stopped.\n"
