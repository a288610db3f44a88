"""Everything that is measured and counted, where it meets: what `/metrics` shows, or logs say.

    mode         /metrics                logs
    prometheus   everything              nothing
    log          empty                   everything but ours
    legacy       the three ts_ counters  everything but ours

Source: contracts/torchserve.md 10.1.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from stoker.errors import ModelNotFound, VersionNotFound
from stoker.metrics_config import MetricsConfig
from stoker.settings import Settings
from stoker.supervisor.devices import Device
from stoker.supervisor.engine import Engine
from stoker.supervisor.families import OURS, PEERS
from stoker.supervisor.frontend_reports import FrontendReports
from stoker.supervisor.gpu_metrics import GpuMetrics
from stoker.supervisor.handler_metrics import HandlerMetrics
from stoker.supervisor.host_command import HostCommand
from stoker.supervisor.host_metrics import HostMetrics
from stoker.supervisor.metrics_log import INTERVAL_S, MetricsLog
from stoker.supervisor.printed_metrics import parse
from stoker.supervisor.statistics import HOSTNAME, families, rows, statistics
from stoker.supervisor.versions import VersionKey
from stoker.supervisor.worker_environment import inherited
from stoker.wire.frames import Measurement

LEGACY: Final = (
    "ts_inference_requests_total",
    "ts_inference_latency_microseconds",
    "ts_queue_latency_microseconds",
)


class Metrics:
    """The numbers of one supervisor's life.

    Args:
        log_folder: For the logs of metrics.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        config: MetricsConfig,
        log_folder: Path,
        devices: Sequence[Device] = (),
    ) -> None:
        self._engine = engine
        self._reports = FrontendReports()
        is_off = settings.disable_system_metrics
        self._command = HostCommand(
            "" if is_off else settings.system_metrics_cmd,
            settings.metric_time_interval,
            inherited(os.environ, None),
        )
        is_off = is_off or self._command.is_set
        self._host = HostMetrics(is_on=not is_off)
        self._gpus = GpuMetrics(() if is_off else devices)
        shown = [name for name in PEERS if config.server is None or name in config.server]
        self._logged: list[str] = []
        self._log: MetricsLog | None = None
        mode = settings.metrics_mode
        if mode == "prometheus":
            self._names = [*shown, *OURS]
        else:
            self._names = [*LEGACY] if mode == "legacy" else []
            self._logged = [name for name in shown if name not in self._names]
            self._log = MetricsLog(log_folder)
        self._log_at = self._host_at = 0.0
        self._interval_s = settings.metric_time_interval
        self._config = config
        self._detects = settings.model_metrics_auto_detect
        self._handlers = HandlerMetrics(config.model, HOSTNAME, is_open=self._detects)

    @property
    def for_workers(self) -> dict[str, Any]:
        """What a worker is told of it; see `wire.loading.LoadSpec`."""
        return {
            "metrics": [list(row) for row in self._config.model],
            "detects_metrics": self._detects,
            "prints_metrics": self._log is not None,
        }

    # -- in -------------------------------------------------------------------

    def take_report(self, report: dict[str, Any], now: float) -> None:
        """What a frontend has counted since it last said so."""
        if not report:
            return
        self._reports.take(report, now)
        for row in report.get("refused") or ():
            if type(row) is list and len(row) == 3:
                self._count_refused(*row)

    def _count_refused(self, model: Any, version: Any, count: Any) -> None:
        """Requests that a frontend refused for us count as asked for."""
        try:
            tally = self._engine.registry.find(model, version).pool.tally
            asked = tally.default if version is None else tally.named
            asked.requests += int(count)
        except (ModelNotFound, VersionNotFound, TypeError, ValueError):
            return  # it has gone since

    def take_measured(self, key: VersionKey, measured: Iterable[Measurement]) -> None:
        """What a worker has measured since it last said so."""
        self._handlers.take(key, measured)

    def take_printed(self, model: str, version: str, line: str, now: float) -> bool:
        """A line that a worker printed; False if it is no metric after all."""
        said = parse(line)
        if said is None:
            return False
        measurement, text = said
        if self._log is not None:
            self._log.write_model(text, now)
        else:
            self._handlers.take(VersionKey(model, version), [measurement])
        return True

    def forget(self, key: VersionKey) -> None:
        """A version has gone with its workers."""
        self._handlers.forget(key)

    # -- out ------------------------------------------------------------------

    def statistics(self, now: float) -> dict[str, Any]:
        """What the verb of that name answers."""
        shown, samples = statistics(self._engine, self._reports, now)
        self._add_host(samples, now)
        found = families(samples, self._names)
        if self._log is None:
            found += self._handlers.families()
        return {
            "jobs": self._engine.job_count,
            "versions": rows(shown),
            "families": found,
        }

    def look(self, now: float) -> None:
        """Write to the log what has changed; called often, and mostly for nothing."""
        self._command.look(now)
        if self._log is None or now < self._log_at:
            return
        self._log_at = now + INTERVAL_S
        _, samples = statistics(self._engine, self._reports, now)
        if now >= self._host_at:
            self._host_at = now + self._interval_s
            self._add_host(samples, now)
        self._log.write_server([(PEERS[name], samples[name]) for name in self._logged], now)

    def _add_host(self, samples: dict[str, list[Any]], now: float) -> None:
        for name, labels, number in self._command.rows:
            samples[name].append([labels, number])
        for name, number in self._host.measure(now).items():
            samples[name].append([["Host", HOSTNAME], number])
        for name, device, number in self._gpus.measure(now):
            samples[name].append([["Host", str(device), HOSTNAME], number])

    def close(self) -> None:
        self._command.close()
        if self._log is not None:
            self._log.close()
