"""Real children behind what stands for bwrap: settled, stopped, and their ends told."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from launcher_host import Host, wait_gone
from open_descriptors import open_descriptors

from stoker.errors import SpawnFailed
from stoker.strays import become_subreaper
from stoker.supervisor import spawning
from stoker.supervisor.exits import ExitStatus

#: Does what bwrap does as far as we can see it: forks the worker, says which pid it has, and
#: stays as its parent; `late` says nothing, `never` starts nothing.
STAND_IN = """
import os, signal, sys
how, _, tell, _, *command = sys.argv[1:]
if how == "never":
    sys.stderr.write("bwrap: no luck today\\n")
    sys.exit(1)
child = os.fork()
if how == "late":
    signal.pause()
if child == 0:
    os.close(int(tell))
    os.setsid()
    os.execv(command[0], command)
os.write(int(tell), b'{\\n    "child-pid": %d,' % child)
os.write(int(tell), b'\\n    "pid-namespace": 4026532180\\n}\\n')
os.close(int(tell))
_, status = os.waitpid(child, 0)
code = os.waitstatus_to_exitcode(status)
os._exit(code if code >= 0 else 128 - code)
"""


@pytest.fixture
def wrapper(tmp_path) -> Iterator[Any]:
    """What makes `Host.run` start a worker behind the stand-in."""
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    become_subreaper()
    yield lambda how="now": (sys.executable, "-S", str(program), how)
    become_subreaper(False)


PAUSE = "print('up'); __import__('signal').pause()"


def test_a_worker_behind_a_sandbox_becomes_our_child_when_it_is_up(host: Host, wrapper) -> None:
    """
    Its end is told by the kernel, and nothing stands between us any more.
    """
    process = host.run(1, PAUSE, wrapper=wrapper())
    host.wait_output(1, b"up")
    monitor = process.ppid()
    assert monitor != os.getpid()
    assert host.launcher.pids() == {process.pid, monitor}

    host.launcher.settle(1)

    assert process.ppid() == os.getpid()
    assert host.launcher.pids() == {process.pid}
    assert wait_gone(monitor)
    process.send_signal(signal.SIGSEGV)
    assert host.wait_exit(1) == ExitStatus(None, signal.SIGSEGV)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(7)", ExitStatus(7, None)),
        ("import os; os.kill(os.getpid(), 11)", ExitStatus(None, signal.SIGSEGV)),
        ("import os; os.kill(os.getpid(), 9)", ExitStatus(None, signal.SIGKILL)),
    ],
)
def test_an_end_before_that_is_told_by_what_watches_over_it(
    host: Host, wrapper, code, status
) -> None:
    """
    A handler may crash while it is imported; the log must say how.
    """
    fds = open_descriptors()

    host.start(1, code, wrapper=wrapper())

    assert host.wait_exit(1) == status
    assert host.launcher.pids() == set()
    assert open_descriptors() == fds


@pytest.mark.parametrize("is_up", [True, False])
def test_a_stop_reaches_a_worker_behind_a_sandbox(host: Host, wrapper, is_up) -> None:
    """
    Before and after it has come up.
    """
    process = host.run(1, PAUSE, wrapper=wrapper())
    host.wait_output(1, b"up")
    if is_up:
        host.launcher.settle(1)

    assert host.launcher.stop(1)

    assert host.wait_exit(1) == ExitStatus(None, signal.SIGKILL, is_ours=True)
    assert wait_gone(process.pid)


def test_a_signal_reaches_the_worker_not_what_watches_over_it(host: Host, wrapper) -> None:
    """
    SIGABRT asks for the worker's stack.
    """
    code = (
        "import signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGABRT])\n"
        "print('up', flush=True); signal.sigwait([signal.SIGABRT]); print('stack', flush=True)\n"
        "signal.pause()"
    )
    host.start(1, code, wrapper=wrapper())
    host.wait_output(1, b"up")

    assert host.launcher.signal(1, signal.SIGABRT)

    host.wait_output(1, b"stack")


def test_a_worker_whose_watcher_is_killed_ends_with_it(host: Host, wrapper) -> None:
    """
    Nobody would know it for ours.
    """
    process = host.run(1, PAUSE, wrapper=wrapper())
    host.wait_output(1, b"up")

    psutil.Process(process.ppid()).kill()

    assert host.wait_exit(1) == ExitStatus(None, signal.SIGKILL)
    assert wait_gone(process.pid)


@pytest.mark.parametrize(
    ("how", "why"), [("never", "no luck today"), ("late", "did not start the worker in time")]
)
def test_a_sandbox_that_does_not_come_about_is_said_at_once(
    host: Host, wrapper, how, why, monkeypatch
) -> None:
    """
    In its own words, and leaving nothing behind.
    """
    monkeypatch.setattr(spawning, "SANDBOX_DEADLINE_S", 0.5)
    fds = open_descriptors()
    before = set(psutil.Process().children(recursive=True))

    with pytest.raises(SpawnFailed, match=why):
        host.start(1, PAUSE, wrapper=wrapper(how))

    assert open_descriptors() == fds
    left = set(psutil.Process().children(recursive=True)) - before
    assert all(wait_gone(process.pid) for process in left)


def test_settling_is_nothing_to_a_worker_without_a_sandbox(host: Host) -> None:
    """
    Whoever says hello is settled.
    """
    process = host.run(1, PAUSE)
    host.wait_output(1, b"up")

    host.launcher.settle(1)
    host.launcher.settle(99)
    process.terminate()

    assert host.wait_exit(1) == ExitStatus(None, signal.SIGTERM)
