"""What the exit codes of our processes mean.

Numbers of 64 and above follow sysexits(3), so they say roughly the same to
people who know those.  The launcher and the systemd units read them: a
process that ends with one of `FINAL` would only fail again, so it is not
restarted.  A process killed by signal N shows as 128 + N in a shell.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """How a process of stoker ended."""

    #: Did what it was asked to; also an orderly stop by SIGTERM or SIGINT.
    OK = 0
    #: Failed; the last log lines say why.
    FAILURE = 1
    #: `stoker status` and `stoker logs`: there is nothing running (as LSB has it).
    NOT_RUNNING = 3
    #: The command line makes no sense.
    USAGE = 64
    #: A worker could not load its handler.
    LOAD_FAILED = 65
    #: What was asked of a running server could not be done: it did not
    #: answer, or did not become ready or stop in time.
    UNAVAILABLE = 69
    #: One of our processes died again and again.
    KEEPS_DYING = 70
    #: The system refused something we cannot do without: fork, memory, disk.
    SYSTEM = 71
    #: A listener's address is taken or not ours (a launcher turns it into 1,
    #: as the peer does: contracts/torchserve.md 1.1).
    ADDRESS_IN_USE = 73
    #: Another server already uses this runtime directory.
    ALREADY_RUNNING = 75
    #: A worker and its supervisor do not speak the same protocol.
    PROTOCOL = 76
    #: A file or folder of ours belongs to somebody else.
    NO_PERMISSION = 77
    #: A setting is unknown or bad.
    CONFIG = 78


#: Trying again without a person's help would end the same way.
FINAL: Final = frozenset(
    {
        ExitCode.USAGE,
        ExitCode.LOAD_FAILED,
        ExitCode.ADDRESS_IN_USE,
        ExitCode.ALREADY_RUNNING,
        ExitCode.PROTOCOL,
        ExitCode.NO_PERMISSION,
        ExitCode.CONFIG,
    }
)


def describe_exit(status: int) -> str:
    """Words for a status as `subprocess` gives it: negative is a signal."""
    if status < 0:
        import signal

        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"
    try:
        return f"{status} ({ExitCode(status).name.lower().replace('_', ' ')})"
    except ValueError:
        return str(status)
