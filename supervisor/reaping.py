"""How a worker's process ended, told by whoever knows: the kernel, bwrap, or `/proc`.

Each worker leads a session, so that its process group is it and what it
forked.  The group is killed while the dead worker is still a zombie: until it
is reaped, nobody else can own its number.

Source: design section 4; contracts/torchserve.md 8.5.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection
from typing import Final

from stoker import process_start
from stoker.logs import get_logger
from stoker.supervisor.exits import ExitStatus

log = get_logger("processes")

#: How a shell, and bwrap, tell of a signal.
_SIGNALLED: Final = 128


def end_of_child(pid: int, sent: Collection[int]) -> ExitStatus | None:
    """Reap a child of ours; None: it lives.

    Args:
        sent: The signals that we have sent it, here and below.

    Raises:
        ChildProcessError: Somebody else has reaped it.
    """
    seen = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if seen is None:
        return None
    kill_group(pid)
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    if found is None:  # cannot be: it was there a moment ago and only we reap
        return None
    if found.si_code == os.CLD_EXITED:
        return ExitStatus(found.si_status, None)
    return _signalled(found.si_status, sent)


def end_behind(
    monitor: subprocess.Popen[bytes], pid: int, sent: Collection[int]
) -> ExitStatus | None:
    """What bwrap says of the end of its only child; or bwrap is gone, and so shall that be."""
    code = monitor.poll()
    if code is None:
        return None
    kill_group(pid)
    if code < 0:
        return _signalled(-code, sent)
    if code > _SIGNALLED:
        return _signalled(code - _SIGNALLED, sent)
    return ExitStatus(code, None)


def end_of_adopted(pid: int, start_ticks: int, sent: Collection[int]) -> ExitStatus | None:
    """How it ended, as far as somebody who is not its parent can see; None: it lives."""
    life = process_start.look(pid)
    if life is not None and life.start_ticks == start_ticks:
        if not life.has_ended:
            return None
        kill_group(pid)
        status = life.wait_status
        if status is not None and os.WIFSIGNALED(status):
            return _signalled(os.WTERMSIG(status), sent)
        if status is not None and os.WIFEXITED(status):
            return ExitStatus(os.WEXITSTATUS(status), None)
    elif life is None:
        kill_group(pid)  # nobody has its number, so the group is what it left
    if signal.SIGKILL in sent:
        return ExitStatus(None, signal.SIGKILL, True)
    return ExitStatus(None, None)


def _signalled(number: int, sent: Collection[int]) -> ExitStatus:
    return ExitStatus(None, number, number in sent)


def kill_orphan(pid: int, start_ticks: int) -> None:
    """SIGKILL for a worker of a predecessor, and for what it started; whoever inherits it reaps."""
    if process_start.start_ticks(pid) == start_ticks:
        kill_group(pid)


def kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError as error:  # a child that became another user
        log.warning("process group not killed", worker_pid=pid, reason=str(error))
