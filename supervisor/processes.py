"""Local worker processes: started, signalled, watched, and reaped.

An end is noticed by pidfd, without signal handlers.  `spawning.py` starts a
process, `running_process.py` is one of them.

Source: design sections 4 and 7; contracts/torchserve.md 8.3, 8.5.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from stoker import process_start
from stoker.errors import ShuttingDown
from stoker.logs import get_logger
from stoker.supervisor.launcher import Nursery, OnExit, OnOutput, WorkerCommand, WorkerProcess
from stoker.supervisor.output_pipes import OutputPipes, open_output
from stoker.supervisor.running_process import RunningProcess
from stoker.supervisor.spawning import spawn
from stoker.supervisor.worker_output import Stream

log = get_logger("processes")

#: How often ends are looked for on a kernel without pidfd.
POLL_S: Final = 0.05

#: Absent where Python was built on old kernel headers.
_PIDFD_OPEN: Final[Callable[[int], int] | None] = getattr(os, "pidfd_open", None)


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
        self._running: dict[int, RunningProcess] = {}
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
        self._stop_watching(running)
        running.settle()
        if running.watched_fd is not None:
            self._loop.add_reader(running.watched_fd, self._look, running)

    def pids(self) -> set[int]:
        """Children of ours that are reaped here and nowhere else."""
        return {pid for running in self._running.values() for pid in running.pids()}

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
    ) -> RunningProcess:
        facts = {"worker": process.worker_id, "worker_pid": process.pid, "label": label}
        heard = partial(_guarded(on_output, facts), process.worker_id)
        output = OutputPipes(self._loop, streams, heard)
        return RunningProcess(process, facts, _guarded(on_exit, facts), output, pidfd)

    def _watch(self, running: RunningProcess) -> None:
        self._running[running.process.worker_id] = running
        self._all_gone.clear()
        if running.watched_fd is not None:
            self._loop.add_reader(running.watched_fd, self._look, running)
        elif self._poll is None:
            self._poll = self._loop.call_later(POLL_S, self._look_at_all)

    def signal(self, worker_id: int, number: signal.Signals) -> bool:
        running = self._running.get(worker_id)
        return running is not None and running.send(number)

    def stop(self, worker_id: int) -> bool:
        running = self._running.get(worker_id)
        if running is None:
            return False
        running.kill()
        return True

    def list(self) -> tuple[WorkerProcess, ...]:
        return tuple(running.process for running in self._running.values())

    def stopped(self) -> tuple[int, ...]:
        """Workers that somebody holds with SIGSTOP: alive, but deaf and mute."""
        return tuple(w for w, running in self._running.items() if running.is_stopped())

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

    def _look(self, running: RunningProcess) -> None:
        """Reap a worker if it is dead; called when its pidfd says so, or by the poll."""
        if running.process.worker_id not in self._running:
            return
        status = running.reap()
        if status is None:
            return
        running.output.drain()
        self._forget(running)
        running.on_exit(running.process.worker_id, status)

    def _look_at_all(self) -> None:
        self._poll = None
        for running in tuple(self._running.values()):
            if running.watched_fd is None:
                self._look(running)
        if any(running.watched_fd is None for running in self._running.values()):
            self._poll = self._loop.call_later(POLL_S, self._look_at_all)

    def _forget(self, running: RunningProcess) -> None:
        self._stop_watching(running)
        running.close()
        del self._running[running.process.worker_id]
        if not self._running:
            self._all_gone.set()
            if self._poll is not None:
                self._poll.cancel()
                self._poll = None

    def _stop_watching(self, running: RunningProcess) -> None:
        if running.watched_fd is not None:
            self._loop.remove_reader(running.watched_fd)

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
