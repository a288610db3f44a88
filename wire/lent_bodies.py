"""Large bodies of answers in shared memory: an open file travels, and nobody copies.

A worker writes such bodies into a file without a name and lends it
(`worker/lender.py`): what goes along with the message is a read-only descriptor,
which the supervisor passes on and the frontend maps.  Through sockets a body
would be copied six times more (docs/architecture.md).

    worker            write -> lend --- frame, descriptor --->  supervisor
    supervisor                          frame, descriptor --->  frontend
    frontend          unpack the frame, copy the bodies, close

In the frame [offset | length] stands in place of a body that lies in the file.

Nothing is left behind by a process that was killed: the file has no name.
Its reader need not trust the lender.  A sealed file cannot be cut short, so a
mapping of it is never a SIGBUS; and as it may be written to meanwhile, bodies
are all that is ever in it: nothing is taken apart there.

Who has no descriptor free gets the message without the file: the frame then ends
its requests with an error, and nothing else is lost.

Source: design section 3; memfd_create(2), fcntl(2) "File Sealing", unix(7) SCM_RIGHTS.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterator
from typing import Final

#: Bodies below this travel inline.
MIN_BODY_BYTES: Final = 256 << 10
#: What a file may hold; what is larger travels inline.
MAX_FILE_BYTES: Final = 256 << 20
#: Of one size for ever: nobody can take from a reader what it has mapped.
SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Handle:
    """An open file that came along with a message, or goes with one; closed with its last owner."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """Harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class LentFrame:
    """An answer frame with bodies in a file; it stands where the bytes of others stand.

    Whoever drops it gives the file back: there is nothing to be called.

    Attributes:
        frame: As `payloads.py` draws it, but for those bodies.
        is_whole: Its file came along.
    """

    __slots__ = ("_handle", "frame")

    def __init__(self, frame: bytes, handle: Handle | None) -> None:
        self.frame = frame
        self._handle = handle

    @property
    def is_whole(self) -> bool:
        return self._handle is not None

    def __len__(self) -> int:
        return len(self.frame)

    def fileno(self) -> int:
        """What is to be sent along."""
        return -1 if self._handle is None else self._handle.fileno()

    @contextlib.contextmanager
    def opened(self) -> Iterator[memoryview | None]:
        """The file, which is given back afterwards; None: there is none that can be read."""
        mapped = None if self._handle is None else _map(self._handle)
        if mapped is None:
            yield None
        else:
            with mapped, memoryview(mapped) as view:
                yield view


def _map(handle: Handle) -> mmap.mmap | None:
    """None: no memory or descriptor is free, or it is no file of a lender's."""
    fd = handle.fileno()
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS != SEALS:
            return None
        return mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
    except (OSError, ValueError):
        return None
    finally:
        handle.close()
