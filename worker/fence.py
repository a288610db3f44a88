"""What a fenced handler may not do; set before any code of its own runs, and for good.

No program that it starts has more rights than it has (no_new_privs), no core
dumps, a bounded number of files, bounded memory where somebody says how much,
and another user than the server where there is one for workers.  Processes that
it forks inherit all of it.  GPUs stay usable; but CUDA reserves far more
address space than there is memory, so a limit of it is for models on processors.

The supervisor asks for it in one variable:

    STOKER_FENCE = memory : uid : gid : groups
        memory   bytes of address space, 0 for any; empty: no limits of any kind
        uid      of the user to become, empty: nobody else
        groups   separated by commas
"""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final, NamedTuple

from stoker import capabilities
from stoker.death_signal import die_with

#: Absent: no fence.
FENCE_VARIABLE: Final = "STOKER_FENCE"
MAX_FILES: Final = 4096
_PR_SET_NO_NEW_PRIVS: Final = 38


class FenceOrder(NamedTuple):
    """What STOKER_FENCE asks for."""

    memory_bytes: int | None
    uid: int | None
    gid: int
    groups: tuple[int, ...]


def parse_fence(text: str) -> FenceOrder:
    """Raises ValueError: a fence that we do not understand must not be missed."""
    memory, uid, gid, groups = text.split(":")
    if not uid:
        return FenceOrder(int(memory), None, 0, ())
    more = tuple(int(group) for group in groups.split(",") if group)
    return FenceOrder(int(memory) if memory else None, int(uid), int(gid), more)


def raise_fence_if_asked() -> None:
    """Raises OSError, ValueError: a fence that cannot be raised must not be missed."""
    asked = os.environ.pop(FENCE_VARIABLE, "")
    if not asked:
        return
    order = parse_fence(asked)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if order.memory_bytes is not None:
        _lower(resource.RLIMIT_CORE, 0)
        _lower(resource.RLIMIT_NOFILE, MAX_FILES)
        if order.memory_bytes:
            _lower(resource.RLIMIT_AS, order.memory_bytes)
    if order.uid is not None:
        _become(order.uid, order.gid, order.groups)


def _become(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Be that user and nobody else, in all four senses, and without a capability."""
    parent = os.getppid()
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # Of a server that is not root but has capabilities, they would stay.
    capabilities.give_up()
    # The kernel has forgotten this wish with the change.
    if parent and not die_with(parent):
        raise ProcessLookupError(parent)


def _lower(which: int, most: int) -> None:
    """Soft and hard, so that nobody without privileges raises it again."""
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(which, (most, most))
