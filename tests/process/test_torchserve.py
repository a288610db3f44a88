"""`stoker torchserve`: what scripts of the peer type, see and are answered (9.1)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from facts import DEADLINE_S, wait_until

from stoker.archives.pack import Parts, pack
from stoker.cli.model_server_pid import NAME, ModelServerPid
from stoker.errors import SettingsError
from stoker.process_start import start_ticks

pytestmark = pytest.mark.slow

Result = subprocess.CompletedProcess[str]
LISTENERS = ("inference", "management", "metrics")
HANDLER = """
print("hello is loaded")

def handle(data, context):
    return ["hello"] * len(data or [])
"""


class Installation:
    """A folder as an operator of the peer has one, with its own temporary folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "tmp").mkdir(mode=0o700)
        (home / "store").mkdir()
        self.pid_file = home / "tmp" / NAME
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.environ = {**kept, "HOME": str(home), "TMPDIR": str(home / "tmp")}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "stoker.cli", "torchserve", *words]

    def __call__(self, *words: str, **environ: str) -> Result:
        """The answer goes to files: a server in the background keeps the streams open."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(
                self.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                check=False,
                cwd=self.home,
                env={**self.environ, **environ},
                timeout=3 * DEADLINE_S,
            )
            out.seek(0)
            err.seek(0)
            return Result(done.args, done.returncode, out.read(), err.read())

    def configure(self, *lines: str) -> None:
        any_ports = [f"{listener}_address=http://127.0.0.1:0" for listener in LISTENERS]
        text = "\n".join(["model_store=store", *any_ports, *lines, ""])
        (self.home / "config.properties").write_text(text)

    def addresses(self) -> dict[str, str]:
        runtime_dir = self.home / "tmp" / f"stoker-{os.geteuid()}"
        found: dict[str, str] = json.loads((runtime_dir / "addresses.json").read_text())
        return found


@pytest.fixture
def torchserve() -> Iterator[Installation]:
    # Short: the name of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ts-", dir="/tmp") as home:
        installation = Installation(Path(home))
        yield installation
        pid = ModelServerPid(installation.home / "tmp").find()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: start_ticks(pid) is None, "the server has stopped")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--version"], 0, "TorchServe Version is 0.12.0\n"),
        (["-v"], 0, "TorchServe Version is 0.12.0\n"),
        (["--stop"], 0, "TorchServe is not currently running.\n"),
        ([], 1, "Missing mandatory parameter --model-store\n"),
        (["--start", "--ncs"], 1, "Missing mandatory parameter --model-store\n"),
        (["--model-store", "gone"], 1, "--model-store directory not found: gone\n"),
        (
            ["--model-store", "store", "--workflow-store", "gone"],
            1,
            "--workflow-store directory not found: gone\n",
        ),
        (["--ts-config", "gone.cfg"], 1, "--ts-config file not found: gone.cfg\n"),
        (
            ["--model-store", "store", "--log-config", "gone.xml"],
            1,
            "--log-config file not found: {home}/gone.xml\n",
        ),
    ],
)
def test_every_message_is_the_peers(
    torchserve: Installation, words: list[str], code: int, said: str
) -> None:
    """
    Scripts look for these texts on standard output and for these exit codes.
    """
    result = torchserve(*words)

    assert (result.returncode, result.stdout) == (
        code,
        said.replace("{home}", str(torchserve.home)),
    )
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--start", "--stop"], "argument --stop: not allowed with argument --start"),
        (["--start", "--version"], "argument -v/--version: not allowed with argument --start"),
        (["--model-store"], "argument --model-store: expected one argument"),
        (["--models"], "argument --models: expected at least one argument"),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(
    torchserve: Installation, words: list[str], said: str
) -> None:
    """
    argparse's code, which the peer's launcher has, not our 64.
    """
    result = torchserve(*words)

    assert result.returncode == 2
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("job_queue_size=many", "config.properties:5: job_queue_size must be a whole number"),
        ("service_envelope=$$NO$$", "config.properties:5: Invalid Environment Variable NO"),
        ("blacklist_env_vars=(", "config.properties:5: blacklist_env_vars is not a regular"),
    ],
)
def test_invalid_configurations_are_said_the_peers_way(
    torchserve: Installation, line: str, said: str
) -> None:
    """
    Section 9.2: on standard output, exit code 1.
    """
    torchserve.configure(line)

    result = torchserve("--start")

    assert result.returncode == 1
    assert result.stdout.startswith(f"Invalid configuration: {said}")


def test_an_installation_starts_serves_and_stops(torchserve: Installation) -> None:
    """
    The whole migration: `alias torchserve='stoker torchserve'`, nothing else touched.
    """
    (torchserve.home / "handler.py").write_text(HANDLER)
    pack(Parts("hello", str(torchserve.home / "handler.py")), torchserve.home / "store")
    torchserve.configure(
        "vmargs=-Xmx4g", "team_label=a b", "load_models=ignored.mar", "default_workers_per_model=1"
    )

    started = torchserve("--start", "--models", "greeter=hello.mar", "--ncs")
    pid = int(torchserve.pid_file.read_text())
    predictions = f"{torchserve.addresses()['inference']}/predictions/greeter"
    with urllib.request.urlopen(predictions, data=b"x", timeout=DEADLINE_S) as answer:
        body = answer.read()
    again = torchserve("--start")
    key_file = torchserve.home / "key_file.json"
    key_file.write_text(
        '{"inference": {"key": "a-key-of-the-server", "expiration time": "2024-02-16T21:12:24Z"}}'
    )
    stopped = torchserve("--stop")

    assert started.returncode == 0, started.stderr
    assert started.stdout == "Model server started.\n"
    assert 'note="understood but without effect: vmargs"' in started.stderr
    assert 'note="unknown and ignored: team_label (line 6)"' in started.stderr
    (summary,) = [line for line in started.stderr.splitlines() if " starting " in line]
    assert " config_file=config.properties " in summary
    assert ' load_models="greeter=hello.mar" ' in summary
    assert body == b"hello"
    assert (again.returncode, again.stdout) == (
        1,
        "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n",
    )
    assert (stopped.returncode, stopped.stdout) == (0, "TorchServe has stopped.\n")
    assert start_ticks(pid) is None
    assert not torchserve.pid_file.exists()
    assert not key_file.exists()
    log = torchserve.home / "logs" / "models" / "greeter" / "1.0.log"
    assert "hello is loaded" in log.read_text()


def test_stop_leaves_the_keys_that_an_operator_brought(torchserve):
    """
    A key without an end was written by hand: nobody could make it again.
    """
    key_file = torchserve.home / "key_file.json"
    key_file.write_text('{"inference": {"key": "a-key-of-my-own"}}')

    torchserve("--stop")

    assert key_file.exists()


def test_a_start_that_fails_says_so_and_leaves_nothing(torchserve: Installation) -> None:
    """
    The peer's text and exit code for a taken address (1.1); the next start is free.
    """
    torchserve.configure()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = torchserve("--start", "--management-address", address)

    assert result.returncode == 1
    assert f"Failed to bind to address: {address}" in result.stderr + result.stdout
    assert "Model server started." not in result.stdout
    assert not torchserve.pid_file.exists()


def test_foreground_stays_until_it_is_stopped_from_elsewhere(torchserve: Installation) -> None:
    """
    What container entry points and service files run.
    """
    torchserve.configure()
    with subprocess.Popen(
        torchserve.command("--start", "--foreground"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=torchserve.home,
        env=torchserve.environ,
        text=True,
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        recorded = int(torchserve.pid_file.read_text())
        stopped = torchserve("--stop", "--foreground")
        code = server.wait(DEADLINE_S)

    assert line == "Model server started.\n"
    assert recorded == server.pid
    assert (stopped.returncode, stopped.stdout) == (0, "TorchServe has stopped.\n")
    assert code == 0
    assert not torchserve.pid_file.exists()


def test_a_pid_file_of_a_dead_or_foreign_process_is_not_believed(tmp_path: Path) -> None:
    """
    Its folder is open to all, and numbers are used again: a signal would hit a stranger.
    """
    file = ModelServerPid(tmp_path)
    found = []
    for text in ("1", str(os.getppid()), "999999999", "", "-1", "12 34", "9" * 40):
        file.path.write_text(text)
        found.append(file.find())

    assert found == [None] * 7


def test_a_pid_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """
    Whoever may write to the folder must not choose what we read or write.
    """
    file = ModelServerPid(tmp_path)
    (tmp_path / "precious").write_text("mine")
    file.path.symlink_to(tmp_path / "precious")

    with pytest.raises(SettingsError, match="set TMPDIR to another folder"):
        file.find()
    file.write(4711)

    assert (tmp_path / "precious").read_text() == "mine"
    assert file.path.read_text() == "4711"
