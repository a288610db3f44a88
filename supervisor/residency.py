"""How much memory workers hold, children included.

Resident set size, summed over a worker's process tree: what the peer's
`memoryUsage` shows, plus what its handler forked.  Pages shared between the
processes of one tree count in each of them; the proportional figure (PSS)
would be fairer, but walks every page table and costs milliseconds per
gigabyte, which is too dear for an answer that monitoring asks for all day.

Source: contracts/torchserve.md 3.6; contracts/README.md, `memoryUsage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MAX_AGE_S: Final = 5.0


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
    import psutil  # when first asked: 3 MB that an idle supervisor need not hold

    children: dict[int, list[int]] = {}
    for process in psutil.process_iter(["ppid"]):
        children.setdefault(process.info["ppid"] or 0, []).append(process.pid)
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
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # gone, a zombie, or not ours to look at
        return 0
