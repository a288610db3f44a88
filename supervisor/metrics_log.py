"""Metrics as the peer's log lines, for those who grep them: `metrics_mode=log`.

    <METRICS_LOCATION or log_dir>/ts_metrics.log, model_metrics.log
    2026-11-22T12:00:00,123 - Requests2XX.Count:8.0|#Level:Host|#hostname:h,timestamp:1717105563

What the peer writes for every request is added up for a second here: the sum
over the lines is the same.

Source: contracts/torchserve.md 9.6, 10.4.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from stoker.supervisor.families import Family
from stoker.supervisor.worker_output import VersionLog

INTERVAL_S: Final = 1.0
MAX_FILE_BYTES: Final = 100 << 20


class MetricsLog:
    """The two files."""

    def __init__(self, folder: Path) -> None:
        self._server = VersionLog(folder / "ts_metrics.log", MAX_FILE_BYTES)
        self._model = VersionLog(folder / "model_metrics.log", MAX_FILE_BYTES)
        self._written: dict[tuple[str, ...], float] = {}

    def write_model(self, line: str, now: float) -> None:
        self._model.write(f"{_stamp()} - {line}\n".encode(), now)

    def write_server(self, families: list[tuple[Family, list[Any]]], now: float) -> None:
        """What has changed since the last call: how much a counter grew, what a gauge is."""
        lines = []
        written: dict[tuple[str, ...], float] = {}
        epoch, stamp = int(time.time()), _stamp()
        for family, samples in families:
            for values, number in samples:
                key = (family.name, *values)
                written[key] = number
                before = self._written.get(key, 0.0 if family.kind == "counter" else None)
                if number == before:
                    continue
                if family.kind == "counter" and before is not None:
                    number = number - before if number >= before else number
                # The host's name is the last label, and has its own place.
                pairs = zip(family.labels[:-1], values[:-1], strict=True)
                labels = ",".join(f"{label}:{value}" for label, value in pairs)
                lines.append(
                    f"{stamp} - {family.name}.{family.unit}:{float(number)}|#{labels}"
                    f"|#hostname:{values[-1]},timestamp:{epoch}\n"
                )
        self._written = written
        if lines:
            self._server.write("".join(lines).encode(), now)

    def close(self) -> None:
        self._server.close()
        self._model.close()


def _stamp() -> str:
    seconds = time.time()
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
    return f"{text},{int(seconds % 1 * 1000):03d}"
