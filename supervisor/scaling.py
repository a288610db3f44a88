"""How many workers a version should have.

For now the peer's rule (contracts/torchserve.md 3.5): below the minimum start
some, above the maximum retire some, between them leave alone.  Scaling by
load takes this place with the autoscaling issue; its inputs will be queue
wait and batch fill.
"""

from __future__ import annotations


def wanted_workers(current: int, min_workers: int, max_workers: int) -> int:
    """The number of workers there should be, given `current` ones."""
    if current < min_workers:
        return min_workers
    return min(current, max(min_workers, max_workers))
