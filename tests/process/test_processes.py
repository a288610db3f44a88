"""Real children: start, output, signals, ends, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import uvloop
from facts import wait_until

from stoker.errors import ShuttingDown, SpawnFailed
from stoker.strays import become_subreaper
from stoker.supervisor import spawning
from stoker.supervisor.exits import ExitStatus
from stoker.supervisor.launcher import WorkerCommand
from stoker.supervisor.processes import LocalLauncher
from stoker.supervisor.worker_output import Stream

DEADLINE_S = 20.0


class Host:
    """A loop with a launcher, and everything the launcher told us."""

    def __init__(self, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        self.loop = loop
        self.launcher = LocalLauncher(loop, **options)
        self.exits: dict[int, ExitStatus] = {}
        self.reports: Counter[int] = Counter()
        self.output: dict[tuple[int, Stream], bytes] = {}
        self.changed = asyncio.Event()

    def run(self, worker_id: int, code: str, **options: Any) -> psutil.Process:
        """Start `python -c code`; `options` override parts of the command."""
        argv = options.pop("argv", (sys.executable, "-S", "-u", "-c", code))
        env = {"PATH": os.environ["PATH"]} | options.pop("env", {})
        command = WorkerCommand(argv, env, options.pop("cwd", "/"), "echo:1.0", **options)
        started = self.launcher.start(worker_id, command, self.on_exit, self.on_output)
        return psutil.Process(started.pid)

    def on_exit(self, worker_id: int, status: ExitStatus) -> None:
        self.reports[worker_id] += 1
        self.exits[worker_id] = status
        self.changed.set()

    def on_output(self, worker_id: int, stream: Stream, data: bytes) -> None:
        key = worker_id, stream
        self.output[key] = self.output.get(key, b"") + data
        self.changed.set()

    def wait_for(self, fact: Any) -> None:
        """Run the loop until `fact()` holds."""

        async def wait() -> None:
            while not fact():
                await self.changed.wait()
                self.changed.clear()

        self.loop.run_until_complete(asyncio.wait_for(wait(), DEADLINE_S))

    def wait_exit(self, worker_id: int) -> ExitStatus:
        self.wait_for(lambda: worker_id in self.exits)
        return self.exits[worker_id]

    def wait_output(self, worker_id: int, text: bytes) -> bytes:
        key = worker_id, Stream.STDOUT
        self.wait_for(lambda: text in self.output.get(key, b""))
        return self.output[key]


def wait_gone(pid: int) -> bool:
    """Wait until a process that is not our child is dead (a zombie of init counts)."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        os.sched_yield()
    return False


def no_pidfd(pid: int) -> int:
    raise OSError("not on this kernel")


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(params=["asyncio", "uvloop", "without pidfd"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    loop = uvloop.new_event_loop() if request.param == "uvloop" else asyncio.new_event_loop()
    # Let the loop open what it opens once, so that later counts are ours.
    loop.run_until_complete(asyncio.sleep(0))
    options = {"open_pidfd": no_pidfd} if request.param == "without pidfd" else {}
    host = Host(loop, **options)
    yield host
    assert loop.run_until_complete(host.launcher.close(DEADLINE_S)) == ()
    loop.close()


def test_exit_code_and_both_streams_arrive(host: Host) -> None:
    """
    The last words of a worker explain its end, so they come before it.
    """
    fds = open_fds()
    host.run(9000, "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")

    status = host.wait_exit(9000)

    assert status == ExitStatus(3, None)
    assert status.describe() == "exit 3"
    assert host.output == {
        (9000, Stream.STDOUT): b"out\n",
        (9000, Stream.STDERR): b"err\n",
    }
    assert host.launcher.list() == ()
    assert open_fds() == fds


def test_a_kill_from_outside_smells_of_memory_and_ours_does_not(host: Host) -> None:
    """
    The OOM killer leaves no note; only we know which SIGKILL was ours.
    """
    foreign = host.run(1, "input_ = __import__('signal').pause()")
    host.run(2, "__import__('signal').pause()")

    foreign.kill()
    assert host.launcher.stop(2)

    assert host.wait_exit(1).is_out_of_memory
    assert host.wait_exit(2) == ExitStatus(None, signal.SIGKILL, is_ours=True)
    assert not host.exits[2].is_out_of_memory


def test_signals_reach_the_worker_alone(host: Host) -> None:
    """
    SIGABRT asks the worker for its stack; its children have no part in that.
    """
    host.run(
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
    host.run(
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
    host.run(
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
    host.run(3, "")
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
    fds = open_fds()
    for worker_id in range(20):
        host.run(worker_id, f"raise SystemExit({worker_id})")

    host.wait_for(lambda: len(host.exits) == 20)
    host.loop.run_until_complete(asyncio.sleep(0))

    assert host.reports == Counter(range(20))
    assert [host.exits[n].code for n in range(20)] == list(range(20))
    assert open_fds() == fds
    assert not psutil.Process().children()


def test_a_worker_can_start_again_under_its_number(host: Host) -> None:
    """
    Replacements keep their worker's id.
    """
    host.run(1, "raise SystemExit(1)")
    assert host.wait_exit(1).code == 1
    host.exits.clear()

    host.run(1, "raise SystemExit(2)")

    assert host.wait_exit(1).code == 2


def test_what_cannot_start_is_said_and_costs_nothing(host: Host) -> None:
    """
    A removed venv or model folder is the operator's to mend, with a reason.
    """
    fds = open_fds()

    with pytest.raises(SpawnFailed, match="No such file"):
        host.run(1, "", argv=("/nonexistent/python",))
    with pytest.raises(SpawnFailed, match="No such file"):
        host.run(1, "", cwd="/nonexistent")
    with pytest.raises(SpawnFailed):
        host.run(1, "", env={"BAD": "nul\0byte"})

    assert host.launcher.list() == ()
    assert open_fds() == fds


def test_workers_are_confined(host: Host) -> None:
    """
    No core dump with a model in it; and when memory ends, a worker goes first.
    """
    host.run(
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
    host.run(1, "import os\nfor _ in range(64): os.write(1, b'x' * 65536)")

    host.wait_exit(1)

    assert len(host.output[1, Stream.STDOUT]) == 64 * 65536


def test_an_escaped_child_with_our_pipe_does_not_hold_up_the_end(host: Host) -> None:
    """
    A daemon that left the group keeps the pipe's other end open for ever.
    """
    host.run(
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
        host.run(worker_id, "__import__('signal').pause()")

    stuck = host.loop.run_until_complete(host.launcher.close(DEADLINE_S))

    assert stuck == ()
    assert set(host.exits) == set(range(5))
    assert all(status.is_ours for status in host.exits.values())
    with pytest.raises(ShuttingDown):
        host.run(9, "")


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


def test_the_token_is_not_in_the_commands_repr() -> None:
    """
    Commands get logged.
    """
    command = WorkerCommand(("python",), {"STOKER_WORKER_TOKEN": "feed"}, "/", "echo:1.0")

    assert "feed" not in repr(command)


@pytest.mark.parametrize(
    ("status", "words", "likely"),
    [
        (ExitStatus(137, None), "exit 137", "out of memory"),
        (ExitStatus(None, signal.SIGSEGV), "SIGSEGV", "crash in native code"),
        (ExitStatus(None, signal.SIGABRT, is_ours=True), "SIGABRT", None),
        (ExitStatus(None, 40), "signal 40", None),
        (ExitStatus(0, None), "exit 0", None),
        (ExitStatus(None, None), "unknown", None),
    ],
)
def test_ends_have_words(status: ExitStatus, words: str, likely: str | None) -> None:
    """
    On call at night, `SIGKILL, likely out of memory` beats -9.
    """
    assert status.describe() == words
    assert status.likely() == likely


# -- behind a sandbox ---------------------------------------------------------------

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
    fds = open_fds()

    host.run(1, code, wrapper=wrapper())

    assert host.wait_exit(1) == status
    assert host.launcher.pids() == set()
    assert open_fds() == fds


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
    host.run(1, code, wrapper=wrapper())
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
    fds = open_fds()
    before = set(psutil.Process().children(recursive=True))

    with pytest.raises(SpawnFailed, match=why):
        host.run(1, PAUSE, wrapper=wrapper(how))

    assert open_fds() == fds
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
