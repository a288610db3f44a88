"""Which life of which process: a pid alone comes round again, a pid with its start does not."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_ENDED: Final = (b"Z", b"X")
_STOPPED: Final = b"T"


class Life(NamedTuple):
    """A process that has not been reaped.

    Attributes:
        start_ticks: When it started, in clock ticks since boot.
        wait_status: How it ended, as `os.wait` tells it; None while it lives.
    """

    state: bytes
    start_ticks: int
    wait_status: int | None

    @property
    def has_ended(self) -> bool:
        return self.state in _ENDED


def look(pid: int) -> Life | None:
    """What the kernel says of a process, whoever is its parent."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the command's name and may hold blanks and brackets.
    after_name = stat.rpartition(b")")[2].split()
    state = after_name[0]
    return Life(state, int(after_name[19]), int(after_name[49]) if state in _ENDED else None)


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none."""
    life = look(pid)
    return None if life is None or life.has_ended else life.start_ticks


def is_stopped(pid: int) -> bool:
    """Does somebody hold it with SIGSTOP?"""
    life = look(pid)
    return life is not None and life.state == _STOPPED


def is_called(pid: int, number: int) -> bool:
    """Is `number` what the process that we know as `pid` finds its own pid to be?

    In a pid namespace of its own that is another one.
    """
    if pid == number:
        return True
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return False
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1]) == number
    return False


def boot_id() -> str:
    """Differs for every boot of this host; "" where the kernel does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
