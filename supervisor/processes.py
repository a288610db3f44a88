"""Local worker processes: started, signalled, watched, and reaped.

An end is noticed by pidfd, without signal handlers.  `spawning.py` starts a
process, `reaping.py` tells how one has ended.

bwrap, as the parent of a worker in a sandbox, would only tell us less about its
end than the kernel does.  So when the worker has said hello bwrap is ended, and
the worker becomes our child, as we are its subreaper (`settle`).

Source: design sections 4 and 7; contracts/torchserve.md 8.3, 8.5.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from stoker import process_start
from stoker.errors import ShuttingDown
from stoker.logs import get_logger
from stoker.supervisor.exits import ExitStatus
from stoker.supervisor.launcher import Nursery, OnExit, OnOutput, WorkerCommand, WorkerProcess
from stoker.supervisor.output_pipes import OutputPipes, open_output
from stoker.supervisor.reaping import end_behind, end_of_adopted, end_of_child, kill_group
from stoker.supervisor.spawning import spawn
from stoker.supervisor.worker_output import Stream

log = get_logger("processes")

#: How often ends are looked for on a kernel without pidfd.
POLL_S: Final = 0.05

#: Absent where Python was built on old kernel headers.
_PIDFD_OPEN: Final[Callable[[int], int] | None] = getattr(os, "pidfd_open", None)


@dataclass(slots=True, eq=False)
class _Running:
    process: WorkerProcess
    #: For the log.
    facts: dict[str, object]
    on_exit: OnExit
    output: OutputPipes
    #: None on a kernel without pidfd.
    pidfd: int | None
    #: None for a worker that a template forked, or that was adopted.
    popen: subprocess.Popen[bytes] | None = None
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
        started = spawn(command, self._nursery)
        process = WorkerProcess(worker_id, started.pid, time.time())
        running = self._running_of(
            process,
            command.label,
            on_exit,
            on_output,
            self._pidfd(started.pid),
            started.streams,
        )
        running.popen = started.popen
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
        running = self._running_of(process, label, on_exit, on_output, pidfd, streams)
        running.start_ticks = start_ticks
        self._watch(running)

    def _running_of(
        self,
        process: WorkerProcess,
        label: str,
        on_exit: OnExit,
        on_output: OnOutput,
        pidfd: int | None,
        streams: dict[Stream, int],
    ) -> _Running:
        facts = {"worker": process.worker_id, "worker_pid": process.pid, "label": label}
        heard = partial(_guarded(on_output, facts), process.worker_id)
        output = OutputPipes(self._loop, streams, heard)
        return _Running(process, facts, _guarded(on_exit, facts), output, pidfd)

    def _watch(self, running: _Running) -> None:
        self._running[running.process.worker_id] = running
        self._all_gone.clear()
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
            log.warning(
                "signal refused",
                signal=number.name,
                reason=str(error),
                **running.facts,
            )
            return False
        running.sent.add(number)
        return True

    def stop(self, worker_id: int) -> bool:
        running = self._running.get(worker_id)
        if running is None:
            return False
        running.sent.add(signal.SIGKILL)
        kill_group(running.process.pid)
        if running.monitor is not None:
            # Until the sandbox stands, the worker is in its group.
            kill_group(running.monitor.pid)
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
            log.error("worker cannot be killed", **running.facts)
            self._forget(running)
        return stuck

    def _look(self, running: _Running) -> None:
        """Reap a worker if it is dead; called when its pidfd says so, or by the poll."""
        if running.process.worker_id not in self._running:
            return
        status = self._reap(running)
        if status is None:
            return
        running.output.drain()
        self._forget(running)
        running.on_exit(running.process.worker_id, status)

    def _reap(self, running: _Running) -> ExitStatus | None:
        pid, sent = running.process.pid, running.sent
        if running.monitor is not None:
            return end_behind(running.monitor, pid, sent)
        if running.start_ticks is not None:
            return end_of_adopted(pid, running.start_ticks, sent)
        try:
            return end_of_child(pid, sent)
        except ChildProcessError:
            # Somebody set SIGCHLD to be ignored, or waits for all children.
            log.error("worker was reaped by somebody else", **running.facts)
            return ExitStatus(None, None)

    def _look_at_all(self) -> None:
        self._poll = None
        for running in tuple(self._running.values()):
            if running.pidfd is None:
                self._look(running)
        if any(running.pidfd is None for running in self._running.values()):
            self._poll = self._loop.call_later(POLL_S, self._look_at_all)

    def _forget(self, running: _Running) -> None:
        running.output.close()
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


def _guarded(callback: Callable[..., None], facts: dict[str, object]) -> Callable[..., None]:
    """The same; a bug there must cost neither the reaping nor the loop."""

    def call(*args: object) -> None:
        try:
            callback(*args)
        except Exception:
            log.exception("callback failed", **facts)

    return call
