"""What a fenced handler may not do; set before any code of its own runs, and for good.

No program that it starts has more rights than it has (no_new_privs), no core
dumps, a bounded number of files, and bounded memory where somebody says how
much.  Processes that it forks inherit all of it.  GPUs stay usable; but CUDA reserves far more
address space than there is memory, so a limit of it is for models on processors.
"""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

#: Bytes of address space, 0 for any; absent: no fence.
FENCE_VARIABLE: Final = "STOKER_FENCE"
MAX_FILES: Final = 4096
_PR_SET_NO_NEW_PRIVS: Final = 38


def raise_fence_if_asked() -> None:
    """Raises OSError: a fence that cannot be raised must not be missed."""
    asked = os.environ.pop(FENCE_VARIABLE, "")
    if not asked:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, MAX_FILES)
    if memory_bytes := int(asked):
        _lower(resource.RLIMIT_AS, memory_bytes)


def _lower(which: int, most: int) -> None:
    """Soft and hard, so that nobody without privileges raises it again."""
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(which, (most, most))
