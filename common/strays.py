"""Orphans that became our children: who adopts must reap."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36


def become_subreaper(is_subreaper: bool = True) -> bool:
    """Descendants become our children when their parent exits."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(_PR_SET_CHILD_SUBREAPER, int(is_subreaper), 0, 0, 0)) == 0


def reap_strays(ours: Collection[int | None]) -> None:
    """Reap children that ended, but for `ours`: those are reaped in their own place.

    While one of ours waits for that, strays behind it wait for the next call.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in ours:
            return
        try:
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return
