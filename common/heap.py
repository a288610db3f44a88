"""What of its memory a process keeps, shares with those it forks, and lets go of."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import sys
from collections.abc import Iterable
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


def share_what_exists() -> None:
    """Before forking: have those who are forked write to as little of it as can be.

    A page that anybody writes to is a page for each of them, and Python writes
    to what it only looks at.  So nothing of this is collected any more; and the
    interpreter's cache of attributes is emptied, which would otherwise write to
    a name that nobody uses (its count of references) whenever it takes in another.
    What importing has freed goes back.
    """
    with contextlib.suppress(AttributeError):  # not every libc has it
        ctypes.CDLL(None).malloc_trim(0)
    sys._clear_type_cache()
    gc.freeze()


def let_go_of_files() -> None:
    """Unmap what this process has read of libraries; what it needs again comes back by itself.

    Importing runs the start of every library (OpenSSL's alone reads 3 MB), which
    nobody needs again, and whoever did it holds for as long as it lives.  What a
    library has written to is left alone.
    """
    libc = ctypes.CDLL(None)
    # Without /proc it stays.
    with (
        contextlib.suppress(OSError),
        open("/proc/self/smaps", encoding="utf-8", errors="replace") as smaps,
    ):
        for begin, end in unwritten_files(smaps):
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def unwritten_files(smaps: Iterable[str]) -> list[tuple[int, int]]:
    """First and last address of what is mapped from files, cannot be written, and never was.

    Args:
        smaps: The lines of `/proc/PID/smaps`.
    """
    found = []
    begin = end = 0
    is_unwritten = False
    for line in smaps:
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            # address perms offset dev inode path
            mode, _, _, inode, *_ = rest.split(None, 4)
            begin, end = (int(word, 16) for word in first.split("-"))
            is_file = mode in ("r--p", "r-xp") and inode != "0"
            if not is_file:
                begin = end
        elif first == "Anonymous:":
            is_unwritten = rest.split()[0] == "0"
        # What was written to and swapped out is not anonymous memory any more, and not in the file.
        elif first == "Swap:" and begin < end and is_unwritten and rest.split()[0] == "0":
            found.append((begin, end))
    return found
