"""One worker's process: signalled, looked at, and what we hold of it until it is gone.

bwrap, as the parent of a worker in a sandbox, would only tell us less about its
end than the kernel does.  So when the worker has said hello bwrap is ended, and
the worker becomes our child, as we are its subreaper (`settle`).
"""

from __future__ import annotations

import os
import signal
import subprocess

from stoker import process_start
from stoker.logs import get_logger
from stoker.supervisor.exits import ExitStatus
from stoker.supervisor.launcher import OnExit, WorkerProcess
from stoker.supervisor.output_pipes import OutputPipes
from stoker.supervisor.reaping import end_behind, end_of_adopted, end_of_child, kill_group

log = get_logger("processes")


class RunningProcess:
    """A child of ours, bwrap's, or of a supervisor that is dead.

    Args:
        facts: What the log says of it.
        on_exit: Whom to tell of its end.
        output: What it writes; closed with it.
        pidfd: None on a kernel without them.

    Attributes:
        popen: None for one that a template forked, or that was adopted.
        monitor: bwrap, as long as it is the worker's parent.
        start_ticks: Of one that is not our child; None for those that are.
    """

    def __init__(
        self,
        process: WorkerProcess,
        facts: dict[str, object],
        on_exit: OnExit,
        output: OutputPipes,
        pidfd: int | None,
    ) -> None:
        self.process = process
        self.facts = facts
        self.on_exit = on_exit
        self.output = output
        self.popen: subprocess.Popen[bytes] | None = None
        self.monitor: subprocess.Popen[bytes] | None = None
        self.monitor_pidfd: int | None = None
        self.start_ticks: int | None = None
        self._pidfd = pidfd
        self._sent: set[int] = set()

    @property
    def watched_fd(self) -> int | None:
        """Readable when there may be an end to reap; None: nobody tells."""
        return self._pidfd if self.monitor is None else self.monitor_pidfd

    def pids(self) -> list[int]:
        """Of children of ours that nobody else may reap."""
        return [self.process.pid] + ([self.monitor.pid] if self.monitor is not None else [])

    def settle(self) -> None:
        """It has come up; what stood between it and us goes."""
        monitor, self.monitor = self.monitor, None
        if self.monitor_pidfd is not None:
            os.close(self.monitor_pidfd)
            self.monitor_pidfd = None
        if monitor is not None and monitor.poll() is None:
            monitor.kill()
            monitor.wait()
        pid = self.process.pid
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            # Nobody's subreaper, or it has just ended.
            self.start_ticks = process_start.start_ticks(pid) or 0

    def send(self, number: signal.Signals) -> bool:
        """To it alone; False when it has ended."""
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            else:  # not reaped, so the number is still its own even if it is dead
                os.kill(self.process.pid, number)
        except ProcessLookupError:
            return False
        except OSError as error:
            log.warning("signal refused", signal=number.name, reason=str(error), **self.facts)
            return False
        self._sent.add(number)
        return True

    def kill(self) -> None:
        """It and all it started."""
        self._sent.add(signal.SIGKILL)
        kill_group(self.process.pid)
        if self.monitor is not None:
            # Until the sandbox stands, the worker is in its group.
            kill_group(self.monitor.pid)

    def is_stopped(self) -> bool:
        """Somebody holds it with SIGSTOP; a debugger's stop is none."""
        if self.start_ticks is not None or self.monitor is not None:
            return process_start.is_stopped(self.process.pid)
        what = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self.process.pid, what) is not None
        except ChildProcessError:
            return False  # its end is on the way to us

    def reap(self) -> ExitStatus | None:
        """How it ended; None: it lives."""
        pid, sent = self.process.pid, self._sent
        if self.monitor is not None:
            return end_behind(self.monitor, pid, sent)
        if self.start_ticks is not None:
            return end_of_adopted(pid, self.start_ticks, sent)
        try:
            return end_of_child(pid, sent)
        except ChildProcessError:
            # Somebody set SIGCHLD to be ignored, or waits for all children.
            log.error("worker was reaped by somebody else", **self.facts)
            return ExitStatus(None, None)

    def close(self) -> None:
        """Hold nothing of it any more, whether it lives or not."""
        self.output.close()
        for fd in (self.monitor_pidfd, self._pidfd):
            if fd is not None:
                os.close(fd)
        # Popen must not wait for a pid that may be somebody else's by now.
        for popen in (self.popen, self.monitor):
            if popen is not None:
                popen.returncode = 0
