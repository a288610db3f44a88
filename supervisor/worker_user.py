"""The user that workers run as, where it is not the server's own.

Workers become it before any code of a handler's runs (`worker/fence.py`), the
server stays who it is.  For that it must be root, or have the capabilities
that are named here.

Source: issue "Nothing is lost", promise 11.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker.errors import SettingsError

#: To become another user and let it have its files, and to end it.
NEEDED: Final = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}
#: To read on what it prints, as a successor of ours must that adopts it.  Containers
#: usually do not give it, not to root either.
FOR_ADOPTION: Final = {"CAP_SYS_PTRACE": 19}


@dataclass(frozen=True, slots=True)
class WorkerUser:
    """A user of this host, with all groups that it is in."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def find_worker_user(name: str) -> WorkerUser | None:
    """Who `worker_user` names; None for "": workers are the server's own user.

    Raises:
        SettingsError: There is no such user, it is no other, or we may not become it.
    """
    if not name:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise _bad(f"worker_user {name} is not a user of this host") from None
    if entry.pw_uid in (0, os.geteuid()):
        raise _bad(f"worker_user {name} must be another user than root and the server's own")
    if missing := missing_rights(NEEDED):
        raise _bad(
            f"worker_user {name} needs a server that runs as root or has {', '.join(missing)}"
        )
    groups = os.getgrouplist(name, entry.pw_gid)
    if own := {0, os.getegid()}.intersection(groups):
        raise _bad(f"worker_user {name} must not be in the server's own group ({min(own)})")
    return WorkerUser(name, entry.pw_uid, entry.pw_gid, tuple(groups), entry.pw_dir)


def missing_rights(wanted: Mapping[str, int]) -> list[str]:
    """The capabilities, with their numbers, that this process does not have."""
    effective = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    return [name for name, bit in wanted.items() if not effective & 1 << bit]


def _bad(text: str) -> SettingsError:
    return SettingsError(f"{text}.", setting="worker_user")
