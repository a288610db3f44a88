"""Local worker processes: spawn, signal, notice the end, reap.

Starting costs the loop about a millisecond (vfork: no `preexec_fn`, no
`user`/`group`), and an end is noticed by pidfd, without signal handlers.  What
a process needs beyond that is set from here once it runs: core limit and OOM
score through `prlimit` and `/proc`, which need no code between fork and exec.
A worker asks for its own death signal (PR_SET_PDEATHSIG) and compares
`STOKER_PARENT_PID`, see `worker_environment.py`.

A worker in a sandbox is started by bwrap, which forks it into its namespaces and
tells us its pid; bwrap itself stays as its parent and would only tell us less
about its end than the kernel does.  So when the worker has said hello bwrap is
ended, and the worker becomes our child, as we are its subreaper (`settle`).

Each worker leads a session, so that its process group is it and what it
forked.  The group is killed while the dead worker is still a zombie: until it
is reaped, nobody else can own its number.

Source: design sections 4 and 7; contracts/torchserve.md 8.3, 8.5.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import functools
import json
import os
import resource
import select
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from stoker import process_start
from stoker.errors import ShuttingDown, SpawnFailed
from stoker.logs import get_logger
from stoker.supervisor.exits import ExitStatus
from stoker.supervisor.worker_output import Stream

log = get_logger("processes")

#: One read of a worker's output; a flood from one worker leaves the loop to others in between.
READ_BYTES: Final = 1 << 16
#: What is still taken from the pipes of a dead worker; twice a pipe's usual capacity.
DRAIN_READS: Final = 2
#: How long bwrap may take until there is a process; the loop waits for it.
SANDBOX_DEADLINE_S: Final = 5.0
_MAX_INFO_BYTES: Final = 4096
#: The same number on all processors.
_PIDFD_GETFD: Final = 438
#: How a shell, and bwrap, tell of a signal.
_SIGNALLED: Final = 128
#: How often ends are looked for on a kernel without pidfd.
POLL_S: Final = 0.05
#: Added to our own OOM score: when memory runs out, a worker goes before we do.
OOM_SCORE_STEP: Final = 300
MAX_OOM_SCORE: Final = 1000

#: Absent where Python was built on old kernel headers.
_PIDFD_OPEN: Final[Callable[[int], int] | None] = getattr(os, "pidfd_open", None)

OnExit = Callable[[int, ExitStatus], None]
OnOutput = Callable[[int, Stream, bytes], None]


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """What to execute; `label` is MODEL:VERSION, for the log."""

    argv: tuple[str, ...]
    # Holds the worker's token: never in a repr, so never in a log.
    env: Mapping[str, str] = field(repr=False)
    cwd: str | None
    label: str
    #: Modules worth having imported before the fork, like "torch".
    preload: tuple[str, ...] = ()
    #: False: only an interpreter of its own will do.
    may_fork: bool = True
    #: Stands before argv: bwrap and what it shows.
    wrapper: tuple[str, ...] = ()
    #: A group that may open its pipes: that of a worker who is another user.
    group: int | None = None
    #: The process that has loaded its model; only a fork of that will do.
    parent: Nursery | None = None

    @property
    def worker_argv(self) -> tuple[str, ...]:
        """The worker's own arguments, behind interpreter, `-P` and `-m stoker.worker`."""
        return self.argv[4:]


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A running worker; `started_at` is the wall's clock, in seconds."""

    worker_id: int
    pid: int
    started_at: float


class Launcher(Protocol):
    """Runs workers somewhere: here, on another host, or in a test's head."""

    def start(
        self, worker_id: int, command: WorkerCommand, on_exit: OnExit, on_output: OnOutput
    ) -> WorkerProcess:
        """Start a worker; `on_exit` is called exactly once, after the last `on_output`.

        Neither is called before `start` has returned.

        Raises:
            SpawnFailed: The process could not be started; `on_exit` is not called.
            ShuttingDown: After `close`.
        """
        ...

    def signal(self, worker_id: int, number: signal.Signals) -> bool:
        """Signal the worker alone; False when it has ended."""
        ...

    def stop(self, worker_id: int) -> bool:
        """Kill the worker and all it started, now; False when it has ended."""
        ...

    def list(self) -> tuple[WorkerProcess, ...]:
        """Workers whose end has not been reported yet."""
        ...


@dataclass(slots=True, eq=False)
class _Running:
    process: WorkerProcess
    #: None for a worker that a template forked, or that was adopted.
    popen: subprocess.Popen[bytes] | None
    label: str
    on_exit: OnExit
    on_output: OnOutput
    #: None on a kernel without pidfd.
    pidfd: int | None
    streams: dict[Stream, int]
    #: bwrap, as long as it is the worker's parent.
    monitor: subprocess.Popen[bytes] | None = None
    monitor_pidfd: int | None = None
    sent: set[int] = field(default_factory=set)
    #: Of one that is not our child; None for those that are.
    start_ticks: int | None = None


class LocalLauncher:
    """`Launcher` for processes of this host, on one asyncio (or uvloop) loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        open_pidfd: Callable[[int], int] | None = _PIDFD_OPEN,
        nursery: Nursery | None = None,
    ) -> None:
        self._nursery = nursery
        self._loop = loop
        self._open_pidfd = open_pidfd
        self._running: dict[int, _Running] = {}
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self._poll: asyncio.TimerHandle | None = None
        self._is_closing = False

    # -- Launcher ---------------------------------------------------------------

    def start(
        self, worker_id: int, command: WorkerCommand, on_exit: OnExit, on_output: OnOutput
    ) -> WorkerProcess:
        if self._is_closing:
            raise ShuttingDown("The supervisor is stopping and starts no workers.")
        if worker_id in self._running:
            raise ValueError(f"worker {worker_id} is running")
        started = _spawn(command, self._nursery)
        process = WorkerProcess(worker_id, started.pid, time.time())
        _confine(started.pid)
        running = _Running(
            process,
            started.popen,
            command.label,
            on_exit,
            on_output,
            self._pidfd(started.pid),
            started.streams,
        )
        if started.monitor is not None:
            running.monitor = started.monitor
            running.monitor_pidfd = self._pidfd(started.monitor.pid)
        self._watch(running)
        return process

    def settle(self, worker_id: int) -> None:
        """A worker has come up; what stood between it and us goes.  Harmless for others."""
        running = self._running.get(worker_id)
        if running is None or running.monitor is None:
            return
        if running.monitor_pidfd is not None:
            self._loop.remove_reader(running.monitor_pidfd)
        self._end_monitor(running)
        if running.pidfd is not None:
            self._loop.add_reader(running.pidfd, self._look, running)
        pid = running.process.pid
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            # Nobody's subreaper, or it has just ended.
            running.start_ticks = process_start.start_ticks(pid) or 0

    def _end_monitor(self, running: _Running) -> None:
        monitor, running.monitor = running.monitor, None
        if running.monitor_pidfd is not None:
            os.close(running.monitor_pidfd)
            running.monitor_pidfd = None
        if monitor is not None and monitor.poll() is None:
            monitor.kill()
            monitor.wait()

    def pids(self) -> set[int]:
        """Children of ours that are reaped here and nowhere else."""
        found = {running.process.pid for running in self._running.values()}
        found.update(r.monitor.pid for r in self._running.values() if r.monitor is not None)
        return found

    def adopt(
        self,
        process: WorkerProcess,
        start_ticks: int,
        label: str,
        on_exit: OnExit,
        on_output: OnOutput,
    ) -> None:
        """Watch over a worker that a predecessor of ours started; we are not its parent.

        Its output is read on from the pipes that it holds itself.

        Raises:
            LookupError: There is no such process (any more), or it is not ours to read.
        """
        pid = process.pid
        pidfd = self._pidfd(pid)
        try:
            streams = open_output(pid)
            if process_start.start_ticks(pid) != start_ticks:
                for fd in streams.values():
                    os.close(fd)
                raise LookupError(pid)
        except BaseException:
            if pidfd is not None:
                os.close(pidfd)
            raise
        running = _Running(process, None, label, on_exit, on_output, pidfd, streams)
        running.start_ticks = start_ticks
        self._watch(running)

    def _watch(self, running: _Running) -> None:
        self._running[running.process.worker_id] = running
        self._all_gone.clear()
        for stream, fd in running.streams.items():
            self._loop.add_reader(fd, self._read, running, stream)
        watched = running.pidfd if running.monitor is None else running.monitor_pidfd
        if watched is not None:
            self._loop.add_reader(watched, self._look, running)
        elif self._poll is None:
            self._poll = self._loop.call_later(POLL_S, self._look_at_all)

    def signal(self, worker_id: int, number: signal.Signals) -> bool:
        running = self._running.get(worker_id)
        if running is None:
            return False
        try:
            if running.pidfd is not None:
                signal.pidfd_send_signal(running.pidfd, number)
            else:  # not reaped, so the number is still its own even if it is dead
                os.kill(running.process.pid, number)
        except ProcessLookupError:
            return False
        except OSError as error:
            log.warning("signal refused", signal=number.name, reason=str(error), **_facts(running))
            return False
        running.sent.add(number)
        return True

    def stop(self, worker_id: int) -> bool:
        running = self._running.get(worker_id)
        if running is None:
            return False
        running.sent.add(signal.SIGKILL)
        _kill_group(running.process.pid)
        if running.monitor is not None:
            # Until the sandbox stands, the worker is in its group.
            _kill_group(running.monitor.pid)
        return True

    def list(self) -> tuple[WorkerProcess, ...]:
        return tuple(running.process for running in self._running.values())

    def stopped(self) -> tuple[int, ...]:
        """Workers that somebody holds with SIGSTOP: alive, but deaf and mute.

        A debugger's stop is not among them.
        """
        what = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        found = []
        for worker_id, running in self._running.items():
            try:
                if running.start_ticks is not None or running.monitor is not None:
                    if process_start.is_stopped(running.process.pid):
                        found.append(worker_id)
                elif os.waitid(os.P_PID, running.process.pid, what) is not None:
                    found.append(worker_id)
            except ChildProcessError:
                pass  # its end is on the way to us
        return tuple(found)

    # -- the end ------------------------------------------------------------------

    def let_go(self) -> None:
        """Look after nobody any more; everybody lives on."""
        self._is_closing = True
        for running in tuple(self._running.values()):
            self._forget(running)

    async def close(self, within_s: float = 5.0) -> tuple[int, ...]:
        """Kill and reap every worker; `on_exit` is called for each.

        Returns:
            Workers that were not gone in time (stuck in the kernel); they
            have been signalled and are nobody's child to wait for any more.
        """
        self._is_closing = True
        for worker_id in tuple(self._running):
            self.stop(worker_id)
        try:
            await asyncio.wait_for(self._all_gone.wait(), within_s)
        except TimeoutError:
            pass
        stuck = tuple(self._running)
        for running in tuple(self._running.values()):
            log.error("worker cannot be killed", **_facts(running))
            self._forget(running)
        return stuck

    def _look(self, running: _Running) -> None:
        """Reap a worker if it is dead; called when its pidfd says so, or by the poll."""
        if running.process.worker_id not in self._running:
            return
        status = self._reap(running)
        if status is None:
            return
        for stream in tuple(running.streams):
            for _ in range(DRAIN_READS):
                self._read(running, stream)
        self._forget(running)
        self._call(running, running.on_exit, running.process.worker_id, status)

    def _reap(self, running: _Running) -> ExitStatus | None:
        pid = running.process.pid
        if running.monitor is not None:
            return self._end_before_settled(running, running.monitor)
        if running.start_ticks is not None:
            return _end_of_adopted(running, pid, running.start_ticks)
        try:
            seen = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if seen is None:
                return None
            _kill_group(pid)
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            # Somebody set SIGCHLD to be ignored, or waits for all children.
            log.error("worker was reaped by somebody else", **_facts(running))
            return ExitStatus(None, None)
        if found is None:  # cannot be: it was there a moment ago and only we reap
            return None
        if found.si_code == os.CLD_EXITED:
            return ExitStatus(found.si_status, None)
        return ExitStatus(None, found.si_status, found.si_status in running.sent)

    def _end_before_settled(
        self, running: _Running, monitor: subprocess.Popen[bytes]
    ) -> ExitStatus | None:
        """What bwrap says of the end of its only child; or bwrap is gone, and so shall that be."""
        code = monitor.poll()
        if code is None:
            return None
        _kill_group(running.process.pid)
        if code < 0:
            return ExitStatus(None, -code, -code in running.sent)
        if code > _SIGNALLED:
            number = code - _SIGNALLED
            return ExitStatus(None, number, number in running.sent)
        return ExitStatus(code, None)

    def _look_at_all(self) -> None:
        self._poll = None
        for running in tuple(self._running.values()):
            if running.pidfd is None:
                self._look(running)
        if any(running.pidfd is None for running in self._running.values()):
            self._poll = self._loop.call_later(POLL_S, self._look_at_all)

    def _forget(self, running: _Running) -> None:
        for stream in tuple(running.streams):
            self._close_stream(running, stream)
        if running.monitor_pidfd is not None:
            self._loop.remove_reader(running.monitor_pidfd)
            os.close(running.monitor_pidfd)
        if running.pidfd is not None:
            self._loop.remove_reader(running.pidfd)
            os.close(running.pidfd)
        # Popen must not wait for a pid that may be somebody else's by now.
        for popen in (running.popen, running.monitor):
            if popen is not None:
                popen.returncode = 0
        del self._running[running.process.worker_id]
        if not self._running:
            self._all_gone.set()
            if self._poll is not None:
                self._poll.cancel()
                self._poll = None

    # -- output ---------------------------------------------------------------------

    def _read(self, running: _Running, stream: Stream) -> None:
        fd = running.streams.get(stream)
        if fd is None:
            return
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._call(running, running.on_output, running.process.worker_id, stream, data)
        else:
            self._close_stream(running, stream)

    def _close_stream(self, running: _Running, stream: Stream) -> None:
        fd = running.streams.pop(stream)
        self._loop.remove_reader(fd)
        os.close(fd)

    def _call(self, running: _Running, callback: Callable[..., None], *args: object) -> None:
        """Call out; a bug there must cost neither the reaping nor the loop."""
        try:
            callback(*args)
        except Exception:
            log.exception("callback failed", **_facts(running))

    def _pidfd(self, pid: int) -> int | None:
        if self._open_pidfd is None:
            return None
        try:
            return self._open_pidfd(pid)
        except OSError as error:  # an old kernel, or a sandbox that does not know the call
            log.debug("no pidfd", reason=str(error))
            return None


def raise_descriptor_limit() -> None:
    """Each worker costs three descriptors; the soft limit of a shell is for one program."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log.debug("descriptor limit not raised", reason=str(error))


def _facts(running: _Running) -> dict[str, object]:
    process = running.process
    return {"worker": process.worker_id, "worker_pid": process.pid, "label": running.label}


def open_output(pid: int) -> dict[Stream, int]:
    """Reading ends of the pipes that a process writes to.  Raises LookupError."""
    streams: dict[Stream, int] = {}
    try:
        for stream, fd in ((Stream.STDOUT, 1), (Stream.STDERR, 2)):
            try:
                reading = _open_pipe(f"/proc/{pid}/fd/{fd}")
            except PermissionError:
                # Another user's: with CAP_SYS_PTRACE one may have its end, but not look there.
                end = _get_descriptor(pid, fd)
                try:
                    reading = _open_pipe(f"/proc/self/fd/{end}")
                finally:
                    os.close(end)
            if reading is not None:
                streams[stream] = reading
    except OSError as error:
        for opened in streams.values():
            os.close(opened)
        raise LookupError(str(error)) from None
    return streams


def _open_pipe(path: str) -> int | None:
    """The reading end; None when a handler has put something else in its place."""
    if not stat.S_ISFIFO(os.stat(path).st_mode):
        return None
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _get_descriptor(pid: int, fd: int) -> int:
    """A duplicate of another process's descriptor.  Raises OSError."""
    pidfd = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        found: int = libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
        if found < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return found
    finally:
        os.close(pidfd)


def kill_orphan(pid: int, start_ticks: int) -> None:
    """SIGKILL for a worker of a predecessor, and for what it started; whoever inherits it reaps."""
    if process_start.start_ticks(pid) == start_ticks:
        _kill_group(pid)


def _end_of_adopted(running: _Running, pid: int, start_ticks: int) -> ExitStatus | None:
    """How it ended, as far as somebody who is not its parent can see; None: it lives."""
    life = process_start.look(pid)
    if life is not None and life.start_ticks == start_ticks:
        if not life.has_ended:
            return None
        _kill_group(pid)
        status = life.wait_status
        if status is not None and os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return ExitStatus(None, number, number in running.sent)
        if status is not None and os.WIFEXITED(status):
            return ExitStatus(os.WEXITSTATUS(status), None)
    elif life is None:
        _kill_group(pid)  # nobody has its number, so the group is what it left
    if signal.SIGKILL in running.sent:
        return ExitStatus(None, signal.SIGKILL, True)
    return ExitStatus(None, None)


class Nursery(Protocol):
    """Starts workers faster than an interpreter of their own would."""

    def spawn(self, command: WorkerCommand, output: tuple[int, int]) -> int | None:
        """The pid of a worker that is our child, or None: start it the ordinary way."""
        ...


@dataclass(frozen=True, slots=True)
class _Started:
    pid: int
    popen: subprocess.Popen[bytes] | None
    monitor: subprocess.Popen[bytes] | None
    streams: dict[Stream, int]


def _spawn(command: WorkerCommand, nursery: Nursery | None) -> _Started:
    fds: list[int] = []
    try:
        for _ in Stream:
            fds += os.pipe2(os.O_CLOEXEC)
        out, out_end, err, err_end = fds
        if command.group is not None:
            # It holds them open while there is no supervisor, and opens /dev/stdout anew.
            for end in (out_end, err_end):
                os.fchown(end, -1, command.group)
                os.fchmod(end, 0o660)
        popen = monitor = None
        pid = None
        if command.parent is not None:
            pid = command.parent.spawn(command, (out_end, err_end))
            if pid is None:
                raise OSError(errno.ECHILD, "the process that has loaded its model is gone")
        elif command.wrapper:
            monitor, pid = _execute_wrapped(command, out_end, err_end)
        elif nursery is not None and command.may_fork:
            pid = nursery.spawn(command, (out_end, err_end))
        if pid is None:
            popen = _execute(command, out_end, err_end)
            pid = popen.pid
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in a name
        reason = error.strerror if isinstance(error, OSError) else None
        if isinstance(error, _NoSandbox):
            reason = _last_words(fds[2]) or reason
        for fd in fds:
            os.close(fd)
        raise SpawnFailed(
            f"A worker process could not be started: {reason or type(error).__name__}.",
            reason=reason or type(error).__name__,
        ) from error
    os.close(out_end)
    os.close(err_end)
    # Our ends only: a handler's print still blocks rather than fail.
    os.set_blocking(out, False)
    os.set_blocking(err, False)
    return _Started(pid, popen, monitor, {Stream.STDOUT: out, Stream.STDERR: err})


class _NoSandbox(OSError):
    """bwrap ended, or said nothing in time."""


def _execute_wrapped(
    command: WorkerCommand, out_end: int, err_end: int
) -> tuple[subprocess.Popen[bytes], int]:
    """bwrap, and the pid of the worker in it.  Raises OSError; then nothing runs."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(told, "rb", buffering=0) as pipe:
        try:
            monitor = subprocess.Popen(
                (*command.wrapper, "--info-fd", str(tell), "--", *command.argv),
                env=command.env,
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=out_end,
                stderr=err_end,
                start_new_session=True,
                pass_fds=(tell,),
            )
        finally:
            os.close(tell)
        try:
            return monitor, _read_child(pipe.fileno())
        except BaseException:
            _kill_group(monitor.pid)
            monitor.wait()
            raise


def _read_child(told: int) -> int:
    """The pid in what bwrap writes about its child: a small JSON document."""
    until = time.monotonic() + SANDBOX_DEADLINE_S
    text = b""
    poll = select.poll()
    poll.register(told, select.POLLIN)
    while len(text) < _MAX_INFO_BYTES and poll.poll(max(0.0, until - time.monotonic()) * 1000):
        piece = os.read(told, _MAX_INFO_BYTES)
        text += piece
        if b"}" in text:
            return int(json.loads(text)["child-pid"])
        if not piece:
            raise _NoSandbox(0, "bwrap ended")
    raise _NoSandbox(0, "bwrap did not start the worker in time")


def _last_words(err: int) -> str:
    os.set_blocking(err, False)
    try:
        lines = os.read(err, READ_BYTES).decode("utf-8", "replace").strip().splitlines()
    except BlockingIOError:
        return ""
    return lines[-1] if lines else ""


def _execute(command: WorkerCommand, out_end: int, err_end: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command.argv,
        env=command.env,
        cwd=command.cwd,
        stdin=subprocess.DEVNULL,
        stdout=out_end,
        stderr=err_end,
        start_new_session=True,
    )


def _confine(pid: int) -> None:
    """No core dumps (they hold models and requests), and first to go when memory is short."""
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_CORE)
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, hard))
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(str(_worker_oom_score()))
    except (OSError, ValueError) as error:
        log.debug("worker not confined", worker_pid=pid, reason=str(error))


@functools.cache
def _worker_oom_score() -> int:
    with open("/proc/self/oom_score_adj") as file:
        return min(MAX_OOM_SCORE, int(file.read()) + OOM_SCORE_STEP)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError as error:  # a child that became another user
        log.warning("process group not killed", worker_pid=pid, reason=str(error))
