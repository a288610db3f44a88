"""Ending with one's parent: the kernel sends a signal when it dies.

The wish lasts for one process: whoever is forked from it must ask again.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with(parent: int | None, number: signal.Signals = signal.SIGKILL) -> bool:
    """Ask for `number` when the parent ends; False if `parent` is not ours (any more).

    A parent that died before the wish was made cannot be noticed by the
    kernel, so its pid is compared afterwards.

    Args:
        parent: Who it should be; None leaves that unchecked.
    """
    _wish(int(number))
    return parent is None or os.getppid() == parent


def outlive_parent() -> None:
    """Take the wish back."""
    _wish(0)


def _wish(number: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
