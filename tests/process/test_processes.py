"""Real children: start, output, signals, ends, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections import Counter

import psutil
import pytest
from facts import wait_until
from launcher_host import DEADLINE_S, Host, wait_gone
from open_descriptors import open_descriptors

from stoker.errors import ShuttingDown, SpawnFailed
from stoker.supervisor.exits import ExitStatus
from stoker.supervisor.launcher import WorkerCommand
from stoker.supervisor.worker_output import Stream


def test_exit_code_and_both_streams_arrive(host: Host) -> None:
    """
    The last words of a worker explain its end, so they come before it.
    """
    fds = open_descriptors()
    host.start(9000, "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")

    status = host.wait_exit(9000)

    assert status == ExitStatus(3, None)
    assert status.describe() == "exit 3"
    assert host.output == {
        (9000, Stream.STDOUT): b"out\n",
        (9000, Stream.STDERR): b"err\n",
    }
    assert host.launcher.list() == ()
    assert open_descriptors() == fds


def test_a_kill_from_outside_smells_of_memory_and_ours_does_not(host: Host) -> None:
    """
    The OOM killer leaves no note; only we know which SIGKILL was ours.
    """
    foreign = host.run(1, "input_ = __import__('signal').pause()")
    host.start(2, "__import__('signal').pause()")

    foreign.kill()
    assert host.launcher.stop(2)

    assert host.wait_exit(1).is_out_of_memory
    assert host.wait_exit(2) == ExitStatus(None, signal.SIGKILL, is_ours=True)
    assert not host.exits[2].is_out_of_memory


def test_signals_reach_the_worker_alone(host: Host) -> None:
    """
    SIGABRT asks the worker for its stack; its children have no part in that.
    """
    host.start(
        5,
        "import os, signal\n"
        "child = os.fork()\n"
        "if child == 0: signal.pause()\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGABRT])\n"
        "print('ready'); signal.sigwait([signal.SIGABRT]); print('stack')\n"
        "print('child lives', os.waitpid(child, os.WNOHANG)); signal.pause()",
    )
    host.wait_output(5, b"ready")

    assert host.launcher.signal(5, signal.SIGABRT)

    assert b"stack\nchild lives (0, 0)\n" in host.wait_output(5, b"child lives (0, 0)\n")


def test_children_of_a_dead_worker_do_not_survive(host: Host) -> None:
    """
    Data loaders that outlive their worker hold memory, GPUs and ports.
    """
    host.start(
        7,
        "import os, signal\n"
        "child = os.fork()\n"
        "if child == 0: signal.pause()\n"
        "print(child, flush=True); os._exit(1)",
    )

    host.wait_exit(7)

    assert wait_gone(int(host.output[7, Stream.STDOUT]))


def test_stop_takes_the_whole_group(host: Host) -> None:
    """
    A worker that ignores everything polite, with a child that does too.
    """
    host.start(
        8,
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True)\n"
        "signal.pause()",
    )
    child = int(host.wait_output(8, b"\n"))

    host.launcher.stop(8)

    assert host.wait_exit(8).describe() == "SIGKILL"
    assert wait_gone(child)


def test_after_the_end_signals_are_refused(host: Host) -> None:
    """
    The number may belong to another process by now.
    """
    host.start(3, "")
    host.wait_exit(3)

    assert not host.launcher.signal(3, signal.SIGKILL)
    assert not host.launcher.stop(3)


def test_a_signal_to_a_dead_but_unnoticed_worker_is_safe(host: Host) -> None:
    """
    Between death and the loop's next turn there is a moment, and loads of code.
    """
    process = host.run(4, "")
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    host.launcher.signal(4, signal.SIGTERM)

    assert host.wait_exit(4) == ExitStatus(0, None)


def test_every_exit_is_reported_once(host: Host) -> None:
    """
    A lost exit is a leaked device; a doubled one restarts twice.
    """
    fds = open_descriptors()
    for worker_id in range(20):
        host.start(worker_id, f"raise SystemExit({worker_id})")

    host.wait_for(lambda: len(host.exits) == 20)
    host.loop.run_until_complete(asyncio.sleep(0))

    assert host.reports == Counter(range(20))
    assert [host.exits[n].code for n in range(20)] == list(range(20))
    assert open_descriptors() == fds
    assert not psutil.Process().children()


def test_a_worker_can_start_again_under_its_number(host: Host) -> None:
    """
    Replacements keep their worker's id.
    """
    host.start(1, "raise SystemExit(1)")
    assert host.wait_exit(1).code == 1
    host.exits.clear()

    host.start(1, "raise SystemExit(2)")

    assert host.wait_exit(1).code == 2


def test_what_cannot_start_is_said_and_costs_nothing(host: Host) -> None:
    """
    A removed venv or model folder is the operator's to mend, with a reason.
    """
    fds = open_descriptors()

    with pytest.raises(SpawnFailed, match="No such file"):
        host.start(1, "", argv=("/nonexistent/python",))
    with pytest.raises(SpawnFailed, match="No such file"):
        host.start(1, "", cwd="/nonexistent")
    with pytest.raises(SpawnFailed):
        host.start(1, "", env={"BAD": "nul\0byte"})

    assert host.launcher.list() == ()
    assert open_descriptors() == fds


def test_workers_are_confined(host: Host) -> None:
    """
    No core dump with a model in it; and when memory ends, a worker goes first.
    """
    host.start(
        1,
        "import os, resource, signal, sys\n"
        "sys.stdin.read(1)\n"
        "print(os.getsid(0) == os.getpid(), sys.stdin.fileno(), flush=True)\n"
        "signal.pause()",
    )
    host.wait_output(1, b"True 0\n")
    (process,) = host.launcher.list()

    assert resource.prlimit(process.pid, resource.RLIMIT_CORE)[0] == 0
    with open(f"/proc/{process.pid}/oom_score_adj") as file, open("/proc/self/oom_score_adj") as us:
        assert int(file.read()) > int(us.read())
    inherited = set(os.listdir(f"/proc/{process.pid}/fd"))
    assert inherited == {"0", "1", "2"}


def test_a_flood_neither_blocks_the_worker_nor_grows_the_backlog(host: Host) -> None:
    """
    Handlers print megabytes; the loop takes it in pieces and the end still comes.
    """
    host.start(1, "import os\nfor _ in range(64): os.write(1, b'x' * 65536)")

    host.wait_exit(1)

    assert len(host.output[1, Stream.STDOUT]) == 64 * 65536


def test_an_escaped_child_with_our_pipe_does_not_hold_up_the_end(host: Host) -> None:
    """
    A daemon that left the group keeps the pipe's other end open for ever.
    """
    host.start(
        1,
        "import os, signal\n"
        "ready, go = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.setsid(); os.write(go, b'.'); signal.pause()\n"
        "os.read(ready, 1); print(child, flush=True)",
    )

    host.wait_exit(1)

    child = int(host.output[1, Stream.STDOUT])
    os.kill(child, signal.SIGKILL)
    assert wait_gone(child)


def test_a_failing_callback_costs_only_itself(host: Host) -> None:
    """
    The loop outlives every exception, and the worker is reaped all the same.
    """

    def fail(*_: object) -> None:
        host.changed.set()
        raise RuntimeError("a bug")

    command = WorkerCommand((sys.executable, "-S", "-c", "print(1)"), {}, "/", "echo:1.0")
    host.launcher.start(1, command, fail, fail)

    host.wait_for(lambda: not host.launcher.list())

    assert not psutil.Process().children()


def test_close_kills_reports_and_refuses_more(host: Host) -> None:
    """
    Stopping the supervisor leaves no worker, and starts no new one.
    """
    for worker_id in range(5):
        host.start(worker_id, "__import__('signal').pause()")

    stuck = host.loop.run_until_complete(host.launcher.close(DEADLINE_S))

    assert stuck == ()
    assert set(host.exits) == set(range(5))
    assert all(status.is_ours for status in host.exits.values())
    with pytest.raises(ShuttingDown):
        host.start(9, "")


def test_stopped_worker_is_seen_and_one_that_goes_on_is_not(host: Host) -> None:
    """
    Nothing of it closes and nothing of it answers: only its parent can tell.
    """
    code = "import signal; print('up'); signal.pause()"
    workers = [host.run(worker_id, code) for worker_id in (1, 2)]
    for worker_id in (1, 2):
        host.wait_output(worker_id, b"up")

    workers[1].suspend()
    wait_until(lambda: host.launcher.stopped() == (2,), "the second is stopped")
    workers[1].resume()
    wait_until(lambda: host.launcher.stopped() == (), "it goes on")

    assert not host.exits
