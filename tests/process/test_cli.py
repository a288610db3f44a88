"""The `stoker` command, with the real server behind it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from facts import wait_until

from stoker.cli.pid_file import find_running
from stoker.exit_codes import ExitCode

pytestmark = pytest.mark.slow

DEADLINE_S = 60.0
Result = subprocess.CompletedProcess[str]


class Terminal:
    """Types `stoker ...` in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.runtime_dir = home / "run" / "stoker"
        (home / "run").mkdir(mode=0o700)
        self.log = home / ".local" / "state" / "stoker" / "logs" / "stoker.log"
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.environ = {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")}

    def __call__(self, *words: str, **environ: str) -> Result:
        return subprocess.run(
            self.command(*words),
            capture_output=True,
            check=False,
            text=True,
            cwd=self.home,
            env={**self.environ, **environ},
            timeout=DEADLINE_S,
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "stoker.cli", *words]

    def start(self, *words: str) -> Result:
        """On ports that the kernel chooses."""
        result = self("start", *any_ports(), *words)
        assert result.returncode == 0, result.stderr
        return result


def any_ports() -> list[str]:
    return [
        f"--{listener}-address=http://127.0.0.1:0"
        for listener in ("inference", "management", "metrics")
    ]


@pytest.fixture
def stoker() -> Iterator[Terminal]:
    # Short: the name of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="stoker-", dir="/tmp") as home:
        terminal = Terminal(Path(home))
        yield terminal
        if running := find_running(terminal.runtime_dir):
            os.kill(running.pid, signal.SIGTERM)
            wait_until(lambda: find_running(terminal.runtime_dir) is None, "it has stopped")


def test_start_status_and_stop_tell_one_story(stoker):
    """
    The terminal's whole day: start, look, stop, look again.
    """
    started = stoker.start()
    address = re.search(r"inference +(http://\S+)", started.stdout)
    assert address is not None
    with urllib.request.urlopen(f"{address[1]}/ping", timeout=10) as answer:
        assert json.load(answer)["status"] == "Healthy"
    status = stoker("status")
    stopped = stoker("stop")
    after = stoker("status")

    assert started.stdout.startswith("Model server started.\n")
    assert status.returncode == 0
    assert "stoker is running." in status.stdout
    assert address[1] in status.stdout
    assert "models      none" in status.stdout
    assert (stopped.returncode, stopped.stdout) == (0, "stoker has stopped.\n")
    assert after.returncode == ExitCode.NOT_RUNNING
    assert "is not running" in after.stdout


def test_status_names_listeners_by_dialect_where_there_are_several(stoker):
    """
    An address alone would not say who is understood there.
    """
    free = "http://127.0.0.1:0"
    listeners = f"{free} mms, {free} torchserve inference"
    started = stoker("start", "--listeners", listeners)
    status = stoker("status")
    stoker("stop")

    assert started.returncode == 0, started.stderr
    named = re.findall(r"^  (\w+/\w+) +(http://127\.0\.0\.1:\d+)$", status.stdout, re.MULTILINE)
    where = dict(named)
    assert sorted(where) == ["mms/inference", "mms/management", "torchserve/inference"]
    assert where["mms/inference"] == where["mms/management"] != where["torchserve/inference"]
    assert "models      none" in status.stdout


def test_status_for_programs_names_every_pid(stoker):
    """
    Scripts should not have to parse sentences.
    """
    stoker.start()

    document = json.loads(stoker("status", "--json").stdout)

    running = document["running"]
    assert {"supervisor", "frontend"} == set(running["children"])
    assert document["models"] == []
    for pid in (running["pid"], *running["children"].values()):
        assert b"stoker" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_second_start_says_that_it_runs_already(stoker):
    """
    As the peer does, with its own exit code.
    """
    stoker.start()

    second = stoker("start", *any_ports())

    assert second.returncode == ExitCode.ALREADY_RUNNING
    assert "stoker is already running (pid " in second.stderr


def test_a_taken_address_ends_the_start_with_the_peers_text(stoker):
    """
    Contract 1.1: the text, and status 1; here from the log's tail.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = stoker("start", *any_ports(), "--inference-address", address)

    assert result.returncode == 1
    assert f"Failed to bind to address: {address}" in result.stderr
    assert "Model server started." not in result.stdout
    assert find_running(stoker.runtime_dir) is None


def test_only_this_runs_lines_are_shown_when_a_start_fails(stoker):
    """
    Yesterday's error would send a person in the wrong direction.
    """
    stoker.log.parent.mkdir(parents=True)
    stoker.log.write_text("error of yesterday\n")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = stoker("start", *any_ports(), "--management-address", address)

    assert "yesterday" not in result.stderr
    assert stoker.log.read_text().startswith("error of yesterday\n")


@pytest.mark.parametrize("command", ["serve", "start", "stop", "status", "logs", "config"])
def test_a_misspelt_flag_refuses_every_command(stoker, command):
    """
    And names the one that was meant.
    """
    result = stoker(command, "--model-stor", "x")

    assert result.returncode == ExitCode.CONFIG
    assert (
        result.stderr
        == "stoker: command line: --model-stor is not a setting; did you mean --model-store?\n"
    )
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["serve", "start"])
def test_a_missing_model_store_refuses_before_anything_starts(stoker, command):
    """
    The peer's text (9.1).
    """
    result = stoker(command, "--model-store", "gone")

    assert result.returncode == ExitCode.CONFIG
    assert f"--model-store directory not found: {stoker.home}/gone" in result.stderr


def test_serve_stops_in_order_on_interrupt(stoker):
    """
    Ctrl-C in a terminal is the usual end of a foreground server.
    """
    with subprocess.Popen(
        stoker.command("serve", *any_ports()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=stoker.home,
        env=stoker.environ,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, log = process.communicate(timeout=DEADLINE_S)

    assert (line, rest, process.returncode) == ("Model server started.\n", "", 0)
    frontend = log.index('process ended process_name=frontend exit="0 (ok)"')
    assert frontend < log.index('process ended process_name=supervisor exit="0 (ok)"')


def test_settings_without_effect_are_named_in_the_log_once(stoker):
    """
    A key that is accepted in silence would seem to be obeyed.
    """
    stoker.start("--vmargs=-Xmx4g", "--grpc-inference-port", "7000")

    log = stoker("logs", "-n", "1000").stdout

    assert log.count('note="understood but without effect: vmargs"') == 1
    assert log.count('note="not yet in effect: grpc_inference_port"') == 1


def test_a_runtime_folder_that_cannot_be_made_is_a_clear_refusal(stoker):
    """
    Never a traceback for a person's typing mistake.
    """
    (stoker.home / "file").touch()

    result = stoker("serve", "--runtime-dir", "file/run")

    assert result.returncode == ExitCode.CONFIG
    assert re.fullmatch(
        r"stoker: runtime_dir \S+/file/run cannot be used: Not a directory\n", result.stderr
    )


def test_stop_without_a_server_is_fine(stoker):
    """
    What was wanted is so.
    """
    result = stoker("stop")

    assert result.returncode == 0
    assert "is not running" in result.stdout


def test_config_shows_every_value_and_where_it_came_from(stoker):
    """
    The first thing to look at when a server does not do what its file says.
    """
    (stoker.home / "config.properties").write_text("# mine\njob_queue_size=7\nvmargs=-Xmx1g\n")

    result = stoker("config", "--max-request-size", "5MiB", STOKER_LOG_LEVEL="debug")

    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert rows["job_queue_size"] == ["7", "config.properties:2"]
    assert rows["max_request_size"] == ["5242880", "flag", "--max-request-size"]
    assert rows["log_level"] == ["debug", "environment", "STOKER_LOG_LEVEL"]
    assert rows["default_response_timeout"][0] == "120"
    assert rows["keystore_pass"][0] == "********"
    assert result.stderr == "note: understood but without effect: vmargs\n"


def test_config_for_programs_is_json(stoker):
    """
    Deployment tools compare it.
    """
    (stoker.home / "stoker.toml").write_text("\njob_queue_size = 7\n")

    document = json.loads(stoker("config", "--json").stdout)

    assert document["config_file"] == "stoker.toml"
    assert document["settings"]["job_queue_size"] == {
        "value": 7,
        "origin": {"kind": "file", "file": "stoker.toml", "line": 2, "text": ""},
        "effect": "in effect",
    }


def test_logs_shows_the_end_and_follows(stoker):
    """
    What `tail -f` does, without knowing where the file is.
    """
    stoker.log.parent.mkdir(parents=True)
    stoker.log.write_text("".join(f"line {i}\n" for i in range(100)))

    last = stoker("logs", "-n", "2")
    with subprocess.Popen(
        stoker.command("logs", "-f", "-n", "1"),
        stdout=subprocess.PIPE,
        text=True,
        cwd=stoker.home,
        env=stoker.environ,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        with stoker.log.open("a") as file:
            file.write("new\n")
        second = process.stdout.readline()
        stoker.log.replace(stoker.log.with_suffix(".log.1"))
        stoker.log.write_text("rolled\n")
        third = process.stdout.readline()
        process.send_signal(signal.SIGINT)

    assert last.stdout == "line 98\nline 99\n"
    assert [first, second, third] == ["line 99\n", "new\n", "rolled\n"]


def test_logs_of_a_model_come_from_its_versions(stoker):
    """
    Where a failed load is explained.
    """
    folder = stoker.log.parent / "models" / "bert"
    folder.mkdir(parents=True)
    (folder / "1.0.log").write_text("boom\n")

    assert stoker("logs", "--model", "bert").stdout == "boom\n"
    assert stoker("logs", "--model", "other").returncode == ExitCode.NOT_RUNNING
    assert stoker("logs", "--model", "../../etc").returncode == ExitCode.USAGE


def test_help_and_version_answer_at_once(stoker):
    """
    The first two things a person types.
    """
    help_text = stoker("--help")
    settings = stoker("serve", "--help")
    version = stoker("version")

    assert help_text.returncode == 0
    for command in ("serve", "start", "stop", "status", "logs", "config", "version"):
        assert re.search(rf"^ +{command} +\S", help_text.stdout, re.MULTILINE), command
    assert "--job-queue-size N" in settings.stdout
    assert re.fullmatch(r"stoker \d+\.\d+\.\d+ \(Python \S+\)\n", version.stdout)
    assert stoker().returncode == ExitCode.USAGE
    assert stoker("bogus").returncode == ExitCode.USAGE
