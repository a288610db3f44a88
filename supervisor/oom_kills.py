"""Whether the kernel's memory killer was at work.

A worker that ends by SIGKILL which we did not send was killed by the kernel
for want of memory, or by somebody from outside; its exit status is the same.
The kernel counts its own kills.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

VMSTAT: Final = Path("/proc/vmstat")
_NAME: Final = b"oom_kill "


class OomKills:
    """The kernel's counter, and where it stood when we last looked."""

    def __init__(self, path: Path = VMSTAT) -> None:
        self._path = path
        self._seen = self._read()

    def have_come(self) -> bool | None:
        """Did it kill anybody since the last question?  None: nobody can know."""
        now, before = self._read(), self._seen
        self._seen = now
        return None if now is None or before is None else now > before

    def _read(self) -> int | None:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            text = os.read(fd, 1 << 16)
        except OSError:
            return None
        finally:
            os.close(fd)
        for line in text.splitlines():
            if line.startswith(_NAME):
                return int(line[len(_NAME) :])
        return None
