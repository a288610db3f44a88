"""Everything that is measured and counted, where it meets: what `/metrics` shows.

Source: contracts/torchserve.md 10.1.
"""

from __future__ import annotations

from typing import Any

from stoker.errors import ModelNotFound, VersionNotFound
from stoker.supervisor.engine import Engine
from stoker.supervisor.families import OURS, PEERS
from stoker.supervisor.frontend_reports import FrontendReports
from stoker.supervisor.statistics import families, rows, statistics


class Metrics:
    """The numbers of one supervisor's life."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reports = FrontendReports()

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

    def statistics(self, now: float) -> dict[str, Any]:
        shown, samples = statistics(self._engine, self._reports, now)
        return {
            "jobs": self._engine.job_count,
            "versions": rows(shown),
            "families": families(samples, (*PEERS, *OURS)),
        }
