"""A worker does not outlive its supervisor.

The kernel sends SIGKILL when the parent dies.  A parent that died before the
wish was made cannot be noticed that way, so its pid is compared afterwards.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

PARENT_VARIABLE: Final = "STOKER_PARENT_PID"
_PR_SET_PDEATHSIG: Final = 1


def die_with_parent() -> bool:
    """Ask for SIGKILL when the parent ends; False if the expected parent is gone already."""
    expected = os.environ.pop(PARENT_VARIABLE, "")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    return not expected.isdigit() or os.getppid() == int(expected)
