"""`system_metrics_cmd`: the operator's program measures the host (10.4)."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from facts import wait_until

from stoker.errors import SettingsError
from stoker.supervisor import host_command
from stoker.supervisor.host_command import HostCommand, parse

WAIT_S = 20.0
OUTPUT = """\
CPUUtilization.Percent:12.5|#Level:Host|#hostname:box,1717105563
GPUUtilization.Percent:7|#Level:Host,DeviceId:1|#hostname:box,1717105563

4711:123456
"""


def command_of(program: str, folder: Path) -> HostCommand:
    file = folder / "collect.py"
    file.write_text(program)
    return HostCommand(f"{sys.executable} {shlex.quote(str(file))}", 60.0, os.environ)


@pytest.fixture
def complaints(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why it was said that the program does not measure."""
    said: list[str] = []

    class Log:
        def warning(self, event: str, *, why: str) -> None:
            said.append(why)

    monkeypatch.setattr(host_command, "log", Log())
    return said


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], HostCommand]:
    """Run a program once."""

    def do(program: str) -> HostCommand:
        command = command_of(program, tmp_path)
        command.look(0.0)
        command.wait_run(WAIT_S)
        return command

    return do


def test_what_the_program_prints_is_measured(run):
    command = run(f"print({OUTPUT!r})")

    assert command.rows == [
        ("CPUUtilization", ["Host", "box"], 12.5),
        ("GPUUtilization", ["Host", "1", "box"], 7.0),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "4711:123456",
        "Requests2XX.Count:1|#Level:Host|#hostname:h,1",
        "QueueTime.Milliseconds:1|#Level:Host|#hostname:h,1",
        "Unheard.Percent:1|#Level:Host|#hostname:h,1",
        "CPUUtilization.Percent:much|#Level:Host|#hostname:h,1",
        "CPUUtilization.Percent:1",
        "Traceback (most recent call last):",
    ],
)
def test_what_is_no_number_of_the_hosts_is_read_over(line):
    """
    The server's own numbers are not the program's to say.
    """
    assert parse(line) == []


def test_it_runs_as_often_as_the_setting_says(run, tmp_path):
    """
    It may be dear, and it is run beside the loop.
    """
    counts = tmp_path / "count"
    command = run(f"open({str(counts)!r}, 'a').write('x')\nprint({OUTPUT!r})")

    for now in (1.0, 59.0, 60.5, 61.0):
        command.look(now)
        command.wait_run(WAIT_S)

    assert counts.read_text() == "xx"


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise SystemExit('no sensor')", "exit 1: no sensor"),
        ("", "exit 0: it said nothing"),
    ],
)
def test_a_program_that_fails_is_complained_of_once(run, complaints, program, why):
    command = run(program)
    command.look(100.0)
    command.wait_run(WAIT_S)

    assert complaints == [why]
    assert command.rows == []


def test_a_program_that_is_not_there_harms_nobody(complaints):
    command = HostCommand("/nowhere/at/all --gpu 0", 60.0, {})

    command.look(0.0)
    command.wait_run(WAIT_S)

    assert len(complaints) == 1
    assert "FileNotFoundError" in complaints[0]


def test_a_program_that_hangs_is_killed_with_what_it_started(monkeypatch, complaints, tmp_path):
    monkeypatch.setattr(host_command, "DEADLINE_S", 0.5)
    pid_file = tmp_path / "pid"
    command = command_of(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n",
        tmp_path,
    )

    command.look(0.0)
    command.wait_run(WAIT_S)

    assert command.rows == []
    assert "TimeoutExpired" in complaints[0]
    if pid_file.exists():  # on a busy machine the program may not have got so far
        pid = int(pid_file.read_text() or 0)
        wait_until(lambda: not pid or _has_ended(pid), "what it started is gone as well")


def _has_ended(pid: int) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_closing_ends_a_run(tmp_path):
    """
    The server is gone at once, whatever its program does.
    """
    started = tmp_path / "started"
    program = f"import time; open({str(started)!r}, 'w').close(); time.sleep(600)"
    command = command_of(program, tmp_path)
    command.look(0.0)

    command.close()
    command.wait_run(WAIT_S)
    command.look(1000.0)

    assert not command._is_running()


def test_without_a_command_there_is_neither_thread_nor_process():
    command = HostCommand("", 60.0, {})

    command.look(0.0)

    assert not command.is_set
    assert command._thread is None


def test_a_command_with_an_open_quote_refuses_the_start():
    with pytest.raises(SettingsError, match="system_metrics_cmd"):
        HostCommand("collect 'x", 60.0, {})
