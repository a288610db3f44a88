"""How busy the host is: measured when somebody asks, and not more often than that.

Source: contracts/torchserve.md 10.2.
"""

from __future__ import annotations

from typing import Any, Final

MIB: Final = 1 << 20
GIB: Final = 1 << 30
#: Two questions within that get the same answer.
MAX_AGE_S: Final = 1.0


class HostMetrics:
    """CPU, memory and the root filesystem.

    Args:
        is_on: Not `disable_system_metrics`.
    """

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on
        self._measured_at = float("-inf")
        self._values: dict[str, float] = {}

    def measure(self, now: float) -> dict[str, float]:
        """By the peer's names; {} when it is off.

        The CPU's is since the question before, and 0.0 at the first.
        """
        if self._is_on and now - self._measured_at >= MAX_AGE_S:
            self._measured_at = now
            self._values = _measure()
        return self._values


def _measure() -> dict[str, float]:
    import psutil  # a megabyte that a server without scrapes does not need

    memory = psutil.virtual_memory()
    disk: Any = psutil.disk_usage("/")
    return {
        "CPUUtilization": psutil.cpu_percent(None),
        "MemoryUtilization": memory.percent,
        "MemoryUsed": memory.used / MIB,
        "MemoryAvailable": memory.available / MIB,
        "DiskUtilization": disk.percent,
        "DiskUsage": disk.used / GIB,
        "DiskAvailable": disk.free / GIB,
    }
