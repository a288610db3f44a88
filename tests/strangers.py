"""Running a server so that another user of this host can run its workers.

The interpreter of a test may lie in a home that is closed to others.  Then the
server gets a mount namespace of its own in which that home holds nothing but the
interpreter, and is open.
"""

from __future__ import annotations

import functools
import os
import pwd
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

#: Exist on every host, and own nothing; one of them is not us.
STRANGER: Final = "nobody" if pwd.getpwnam("nobody").pw_uid != os.geteuid() else "daemon"
CHECKOUT: Final = Path(__file__).resolve().parents[1]
_OPEN: Final = 0o001


def _has(*capabilities: int) -> bool:
    status = Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0]
    return all(int(status, 16) >> bit & 1 for bit in capabilities)


def may_become_others() -> bool:
    """Root, as in most containers that run tests."""
    return os.geteuid() == 0 and _has(0, 5, 6, 7)


def may_look_at_others() -> bool:
    """Which few containers give, not to root either."""
    return _has(19)


def as_stranger(*rights: str) -> tuple[str, ...]:
    """What to put before a command line so that it is run by STRANGER with these rights alone.

    Args:
        rights: Capabilities, in setpriv's words.
    """
    given = [f"+{right}" for right in rights]
    more = ("--inh-caps", ",".join(given), "--ambient-caps", ",".join(given)) if rights else ()
    entry = pwd.getpwnam(STRANGER)
    ids = ("--reuid", str(entry.pw_uid), "--regid", str(entry.pw_gid), "--clear-groups")
    return ("setpriv", *ids, "--bounding-set", ",".join(["-all", *given]), "--no-new-privs", *more)


@functools.cache
def reachable() -> tuple[str, ...] | None:
    """What to put before a server's command line; None: a stranger cannot run our interpreter."""
    needed = {sys.prefix, sys.base_prefix, os.path.realpath(sys.executable), str(CHECKOUT)}
    needed = {os.path.realpath(path) for path in needed}
    closed = {folder for path in needed if (folder := _closed_above(path)) is not None}
    if not closed:
        return ()
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    hidden = sorted(p for p in needed if any(p.startswith(f"{c}/") for c in closed))
    # The server may be told to find no program at all.
    lines = ["set -e", "wanted=$PATH PATH=/usr/sbin:/usr/bin:/sbin:/bin", "aside=$(mktemp -d)"]
    for number, path in enumerate(hidden):
        kind = "mkdir" if os.path.isdir(path) else "touch"
        lines += [f"{kind} $aside/{number}", f"mount --bind {shlex.quote(path)} $aside/{number}"]
    lines += [f"mount -t tmpfs -o mode=755 none {shlex.quote(each)}" for each in closed]
    for number, path in enumerate(hidden):
        quoted, folder = shlex.quote(path), shlex.quote(os.path.dirname(path))
        kind = f"mkdir -p {quoted}" if os.path.isdir(path) else f"mkdir -p {folder}; touch {quoted}"
        lines += [f"if [ ! -e {quoted} ]; then {kind}; fi"]
        lines += [f"mount --bind $aside/{number} {quoted}", f"umount $aside/{number}"]
    lines += ["rm -r $aside", "PATH=$wanted", 'exec "$@"']
    prefix = (unshare, "--mount", "/bin/sh", "-c", "\n".join(lines), "sh")
    tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    return prefix if tried.returncode == 0 else None


def _closed_above(path: str) -> str | None:
    """The outermost folder on the way to `path` that a stranger cannot pass."""
    for folder in reversed(Path(path).parents):
        if not folder.stat().st_mode & _OPEN:
            return str(folder)
    return None
