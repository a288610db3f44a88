"""How much memory is free for more workers: of the host, and of the control group we run in.

The kernel's own estimate of what can be had without swapping (`MemAvailable`),
or less where a control group allows less: in a container the host's figure
would invite the memory killer.  Page cache of the group that is not in use
counts as free, as it does for the host.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_GROUPS: Final = Path("/sys/fs/cgroup")


def available_bytes(groups: Path = _GROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Never negative."""
    import psutil  # when first asked: an idle supervisor need not hold it

    return max(0, min(int(psutil.virtual_memory().available), *_left(groups, membership)))


def _left(groups: Path, membership: Path) -> list[int]:
    """What our own control group and those above it have left; a huge number where none limits."""
    found = [1 << 62]
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return found
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:  # the first kind of control groups, which nobody should run any more
        return found
    folder = groups / own.lstrip("/")
    while True:
        left = _left_in(folder)
        if left is not None:
            found.append(left)
        if folder == groups or groups not in folder.parents:
            return found
        folder = folder.parent


def _left_in(folder: Path) -> int | None:
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        if limit == "max":
            return None
        return int(limit) - used + _cache_bytes(folder)
    except (OSError, ValueError):
        return None


def _cache_bytes(folder: Path) -> int:
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0
