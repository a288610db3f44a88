"""How much memory workers hold, children included.

Resident set size, summed over a worker's process tree: what the peer's
`memoryUsage` shows, plus what its handler forked.  Pages shared between the
processes of one tree count in each of them; the proportional figure (PSS)
would be fairer, but walks every page table and costs milliseconds per
gigabyte, which is too dear for an answer that monitoring asks for all day.

Source: contracts/torchserve.md 3.6; contracts/README.md, `memoryUsage`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

MAX_AGE_S: Final = 5.0
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Residency:
    """Memory of workers, read on demand and at most every `max_age_s` per worker."""

    def __init__(self, max_age_s: float = MAX_AGE_S) -> None:
        self._max_age_s = max_age_s
        self._seen: dict[tuple[int, int], tuple[float, int]] = {}

    def memory_bytes(self, pids: Mapping[int, int], now: float) -> dict[int, int]:
        """Bytes by worker id; 0 for a worker that is gone.

        One walk over the host's processes serves all workers that are asked
        for, so ask for many at once.

        Args:
            pids: Worker id -> pid, of workers that were not reaped yet: an
                unreaped pid cannot be somebody else's.
        """
        self._seen = {
            key: (at, size) for key, (at, size) in self._seen.items() if now - at < self._max_age_s
        }
        stale = [item for item in pids.items() if item not in self._seen]
        if stale:
            children = children_of_all()
            for worker_id, pid in stale:
                self._seen[worker_id, pid] = now, tree_bytes(pid, children)
        return {worker_id: self._seen[worker_id, pid][1] for worker_id, pid in pids.items()}


def children_of_all() -> dict[int, list[int]]:
    """Pid -> pids of its children, for the whole host, in one walk."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (stat := _read(f"/proc/{name}/stat")):
            # The second field is the command's name and may hold blanks and brackets.
            parent = int(stat.rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    return children


def tree_bytes(root: int, children: Mapping[int, list[int]]) -> int:
    total = 0
    # Pids can be re-used during the walk, so a loop in the tree is possible.
    waiting, seen = [root], {root}
    while waiting:
        pid = waiting.pop()
        total += _resident_bytes(pid)
        fresh = [child for child in children.get(pid, ()) if child not in seen]
        seen.update(fresh)
        waiting += fresh
    return total


def _resident_bytes(pid: int) -> int:
    """0 for a process that is gone, or a zombie."""
    statm = _read(f"/proc/{pid}/statm")
    return int(statm.split()[1]) * _PAGE_BYTES if statm else 0


def _read(path: str) -> bytes:
    """A short file of /proc; empty when its process is gone, or not ours to look at."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)
