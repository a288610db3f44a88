"""Which life of which process: a pid alone comes round again, a pid with its start does not."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the command's name and may hold blanks and brackets.
    after_name = stat.rpartition(b")")[2].split()
    if after_name[0] in (b"Z", b"X"):
        return None
    return int(after_name[19])


def boot_id() -> str:
    """Differs for every boot of this host; "" where the kernel does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
