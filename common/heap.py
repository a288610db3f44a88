"""How much of what we free stays with the process, ready for the next message."""

from __future__ import annotations

from typing import Final

#: Buffers below this come from the heap; twice as much may lie free at its end.
KEPT_BYTES: Final = 8 << 20


def keep_what_is_freed() -> None:
    """Have malloc keep the room of a few large messages instead of returning it each time.

    glibc takes what is larger than its largest block freed so far (128 KiB at
    first) from the kernel and hands it back at once, and gives back the end of
    its heap beyond twice that.  A process that never freed anything large pays
    for every message of a megabyte with hundreds of page faults, one that
    happened to does not.  So free something large, once; nobody touches it,
    so it costs nothing.  What is larger than this raises the mark by itself.
    """
    bytes(KEPT_BYTES)
