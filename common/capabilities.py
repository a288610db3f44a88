"""Rights beyond those of a user: not for programs that others have written.

A server that is not root but has capabilities (systemd's AmbientCapabilities)
hands them on to whatever it executes, unless a thread says otherwise.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_PR_CAP_AMBIENT: Final = 47
_CLEAR_ALL: Final = 4
_VERSION_3: Final = 0x20080522


def keep_from_programs() -> None:
    """What this thread executes from now on has no capabilities; the thread keeps its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    _must(libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0))


def give_up() -> None:
    """This thread has none any more, and whatever it executes has none."""
    keep_from_programs()
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _must(libc.capset(header, nothing))


def _must(outcome: int) -> None:
    if outcome != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
