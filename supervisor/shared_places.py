"""What workers of another user must reach, and nothing else of ours.

    runtime_dir           0711            pass, but look at nothing
      workers/            0710 its group  worker.sock, 0660
    cache_dir, archives, environments     0711
      archives/<sha256>   0750 its group  read; found by who knows its name
    /dev/shm/stoker-...   0710 its group  frontends give their files to it, 0640

Whoever cannot list a folder finds in it only what he was told of, and a worker
is told of its own model.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from stoker.errors import SettingsError
from stoker.settings import Settings
from stoker.supervisor.worker_user import WorkerUser
from stoker.wire.runtime_dir import worker_folder

#: May be passed through, not looked at.
PASSABLE: Final = 0o711
_CHECK_DEADLINE_S: Final = 30.0
#: What a worker does first; says the first folder that it cannot enter.
_CHECK: Final = """
import os, sys
for folder in sys.argv[1:]:
    if not os.access(folder, os.X_OK):
        print(folder)
        break
import stoker.worker.serve, stoker.worker.contracts.torchserve
"""


def open_places(settings: Settings, user: WorkerUser) -> None:
    """Let workers of that user pass to their socket and their models.

    Raises:
        SettingsError: We may not, or it is not ours.
    """
    sockets, archives, environments = _places(settings)
    for folder in (settings.cache_dir, archives, environments, sockets):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (settings.runtime_dir, settings.cache_dir, archives, environments):
        os.chmod(folder, PASSABLE)
    os.chown(sockets, -1, user.gid)
    os.chmod(sockets, 0o710)


def _places(settings: Settings) -> tuple[Path, Path, Path]:
    """Sockets, archives, environments."""
    cache = settings.cache_dir
    return worker_folder(settings.runtime_dir), cache / "archives", cache / "environments"


def check_places(settings: Settings, user: WorkerUser) -> None:
    """Be that user for a moment: whatever stands in the way is seen now, not at the first model.

    Raises:
        SettingsError: It cannot get to those folders, or cannot run our interpreter.
    """
    folders = [str(folder) for folder in _places(settings)]
    try:
        found = subprocess.run(
            [sys.executable, "-P", "-c", _CHECK, *folders],
            user=user.uid,
            group=user.gid,
            extra_groups=user.groups,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CHECK_DEADLINE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unreachable(user, f"run {sys.executable}: {error}") from None
    if folder := found.stdout.strip():
        raise _unreachable(user, f"reach {folder}")
    if found.returncode:
        lines = found.stderr.strip().splitlines() or ["it ended without a word"]
        raise _unreachable(user, f"import stoker with {sys.executable}: {lines[-1]}")


def _unreachable(user: WorkerUser, what: str) -> SettingsError:
    return SettingsError(f"worker_user {user.name} cannot {what}.", setting="worker_user")
