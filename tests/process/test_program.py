"""A program that runs in a fork of the launcher cannot tell that it was not executed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from stoker.exit_codes import ExitCode

pytestmark = pytest.mark.slow

# A program that says what it finds.
TOLD = """
import json, os, signal, sys, threading

def ignored_and_blocked():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return [lines[name].strip() for name in ("SigBlk", "SigIgn", "SigCgt")]

def serve(*arguments_and_environ):
    *arguments, environ = arguments_and_environ
    print(json.dumps({
        "arguments": arguments,
        "argv": sys.argv,
        "environ": dict(environ),
        "os.environ": dict(os.environ),
        "signals": ignored_and_blocked(),
        "wakeup": signal.set_wakeup_fd(-1),
        "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
        "stdin": os.readlink("/proc/self/fd/0"),
        "is_leader": os.getpgid(0) == os.getpid(),
        "threads": threading.active_count(),
        "ppid": os.getppid(),
    }))
    return 7
"""

# Everything that must not reach the program, and then the program.
PARENT = """
import json, os, signal, socket, sys
from stoker.cli.program import Program
from stoker.cli.signal_queue import SignalQueue

sys.path.append(sys.argv[1])
lock = os.open(sys.argv[1] + "/lock", os.O_RDWR | os.O_CREAT)
os.set_inheritable(lock, True)
pair = socket.socketpair()
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
with SignalQueue((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)):
    program = Program("told", "one", 2)
    program.load()
    pid = program.fork({"PATH": "/bin", "ONLY": "this"})
    _, status = os.waitpid(pid, 0)
print(json.dumps({"pid": os.getpid(), "exit": os.waitstatus_to_exitcode(status)}))
"""

# The same by `exec`, for comparison.
EXECUTED = "import sys; sys.path.append(sys.argv.pop(1)); import told; told.serve({})"


def run(folder: Path, code: str, *argv: str) -> list[Any]:
    """Run a script; what it and its children printed, line by line."""
    said = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code), str(folder), *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    ).stdout
    return [json.loads(line) for line in said.splitlines()]


def test_a_forked_program_begins_like_an_executed_one(tmp_path: Path) -> None:
    """
    What the launcher holds and how it handles signals is nobody else's business: a lock that
    a child inherits would outlive the launcher, a handler would swallow its SIGTERM.
    """
    (tmp_path / "told.py").write_text(TOLD)
    # USR1 is ignored by whoever started us, as nohup does it: that is inherited.
    executed = f"import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n{EXECUTED}"

    told, parent = run(tmp_path, PARENT)
    [wanted] = run(tmp_path, executed)

    assert parent["exit"] == 7
    assert told["arguments"] == ["one", 2]
    assert told["argv"] == ["told"]
    assert told["environ"] == told["os.environ"] == {"PATH": "/bin", "ONLY": "this"}
    assert told["signals"] == wanted["signals"]
    assert told["wakeup"] == -1
    assert told["descriptors"] == wanted["descriptors"] == [0, 1, 2]
    assert told["stdin"] == "/dev/null"
    assert told["is_leader"]
    assert told["threads"] == 1
    assert told["ppid"] == parent["pid"]


def test_a_program_prepares_in_the_launcher_and_its_forks_find_it_done(tmp_path: Path) -> None:
    """
    What is imported before the fork is there once for all, and for successors at once.
    """
    (tmp_path / "told.py").write_text(
        "import json, os\n"
        "made = []\n"
        "def prepare(*arguments):\n"
        "    made.append([os.getpid(), *arguments])\n"
        "def serve(*_):\n"
        "    print(json.dumps(made))\n"
        "    return 0\n"
    )

    made, parent = run(tmp_path, PARENT)

    assert made == [[parent["pid"], "one", 2]]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return 0", 0),
        ("sys.exit()", 0),
        ("sys.exit(73)", 73),
        ("sys.exit('because')", 1),
        ("raise RuntimeError('because')", 1),
        ("signal.raise_signal(signal.SIGTERM)", -signal.SIGTERM),
    ],
)
def test_however_a_program_ends_its_status_is_the_interpreters(
    tmp_path: Path, body: str, code: int
) -> None:
    """
    The launcher decides by the exit status whether to start it again.
    """
    (tmp_path / "told.py").write_text(
        f"import atexit, json, signal, sys\n"
        f"def serve(*_):\n"
        f"    atexit.register(print, json.dumps('at exit'))\n"
        f"    {body}\n"
    )

    *said, parent = run(tmp_path, PARENT)

    assert parent["exit"] == code
    assert said == ([] if code < 0 else ["at exit"])


def test_our_programs_are_imported_without_threads_and_open_files() -> None:
    """
    A thread does not survive a fork, and its locks stay locked; a file would be shared.
    """
    code = """
        import gc, json, os
        from stoker.cli.program import Program
        from stoker.settings.load import load_with_origins

        loaded = load_with_origins([], {})
        for name in ("supervisor", "frontend"):
            Program(f"stoker.{name}.__main__", loaded).load()
        print(json.dumps([
            len(os.listdir("/proc/self/task")),
            sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
            gc.get_freeze_count() > 10_000,
            gc.isenabled(),
        ]))
    """

    [(threads, descriptors, is_frozen, collects)] = run(Path("/"), code)

    assert threads == 1
    assert descriptors == [0, 1, 2]
    assert is_frozen
    assert collects


def test_a_program_whose_parent_is_gone_already_does_not_begin(tmp_path: Path) -> None:
    """
    The kernel tells nobody about a parent that died before it was asked to.
    """
    (tmp_path / "told.py").write_text(TOLD)
    code = """
        import os, sys
        from stoker.cli import program

        sys.path.append(sys.argv[1])
        told = program.Program("told")
        told.load()
        os.getppid = lambda: 1
        pid = told.fork({})
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status))
    """

    assert run(tmp_path, code) == [int(ExitCode.OK)]
    assert os.getppid() != 1
