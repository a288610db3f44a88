"""How many processors this process may use: what the scheduler and the container allow.

A host may have more; workers started for those would only take turns.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_CGROUP_V2: Final = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1: Final = Path("/sys/fs/cgroup/cpu")


def usable_processors(cgroup_v2: Path = _CGROUP_V2, cgroup_v1: Path = _CGROUP_V1) -> int:
    """At least 1."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(cgroup_v2, cgroup_v1)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _quota(cgroup_v2: Path, cgroup_v1: Path) -> float | None:
    """Processors' worth of time that a container may use; None for no limit."""
    try:
        words = cgroup_v2.read_text().split()
    except OSError:
        try:
            words = [
                (cgroup_v1 / f"cpu.cfs_{name}_us").read_text().strip()
                for name in ("quota", "period")
            ]
        except OSError:
            return None
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max 100000"
        return None
    return quota / period if quota > 0 and period > 0 else None
