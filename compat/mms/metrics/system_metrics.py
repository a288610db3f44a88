"""What the host has and uses, in the peer's names and units; the server measures it by itself."""

from __future__ import annotations

from typing import Final

import psutil

from stoker.worker.metrics import Dimension
from stoker.worker.mms_metrics import MmsMetric as Metric

__all__ = ["collect_all"]

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30


def collect_all() -> list[Metric]:
    """Processor, memory and disk, once."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
    found: tuple[tuple[str, float, str], ...] = (
        ("CPUUtilization", psutil.cpu_percent(), "percent"),
        ("DiskAvailable", disk.free / _GIB, "GB"),
        ("DiskUsage", disk.used / _GIB, "GB"),
        ("DiskUtilization", disk.percent, "percent"),
        ("MemoryAvailable", memory.available / _MIB, "MB"),
        ("MemoryUsed", memory.used / _MIB, "MB"),
        ("MemoryUtilization", memory.percent, "percent"),
    )
    host = [Dimension("Level", "Host")]
    return [Metric(name, value, unit, host) for name, value, unit in found]
