"""How busy the GPUs are.

Reading may take seconds when one has fallen off the bus, so it is done in a
thread, when somebody asks; the answer is what the reading before found.

Source: contracts/torchserve.md 10.2.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from stoker.logs import get_logger
from stoker.supervisor.devices import Device, GpuUsage, usage

log = get_logger("devices")

#: Readings come no more often than that.
MIN_AGE_S: Final = 5.0
MIB: Final = 1 << 20

#: Name of a metric, device, number.
Row = tuple[str, int, float]


class GpuMetrics:
    """Of the devices that workers may use."""

    def __init__(
        self,
        devices: Sequence[Device],
        read: Callable[[Device], GpuUsage | None] = usage,
    ) -> None:
        self._devices = devices
        self._read = read
        self._rows: list[Row] = []
        self._read_at = float("-inf")
        self._reader: threading.Thread | None = None

    def measure(self, now: float) -> list[Row]:
        """What was read last; another reading is begun if that was long ago."""
        rows = self._rows
        is_reading = self._reader is not None and self._reader.is_alive()
        if self._devices and not is_reading and now - self._read_at >= MIN_AGE_S:
            self._read_at = now
            self._reader = threading.Thread(target=self._read_all, name="gpus", daemon=True)
            self._reader.start()
        return rows

    def wait_read(self, timeout_s: float) -> None:
        """Until the reading that was begun has ended; for tests."""
        if self._reader is not None:
            self._reader.join(timeout_s)

    def _read_all(self) -> None:
        try:
            self._rows = [row for device in self._devices for row in self._rows_of(device)]
        except Exception:
            log.exception("gpus could not be read")

    def _rows_of(self, device: Device) -> list[Row]:
        found = self._read(device)
        if found is None:
            return []
        rows: list[Row] = [
            ("GPUMemoryUsed", device.index, found.memory_used_bytes / MIB),
        ]
        if device.memory_bytes:
            share = 100.0 * found.memory_used_bytes / device.memory_bytes
            rows.append(("GPUMemoryUtilization", device.index, share))
        if found.gpu_percent is not None:
            rows.append(("GPUUtilization", device.index, float(found.gpu_percent)))
        return rows
