"""Tells the supervisor what this process has counted: about once a second, and before a scrape.

A process that has nothing to say says so every few seconds, so that what it
holds (connections, requests, bytes) is not taken for gone with it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final

from stoker.errors import StokerError
from stoker.frontend.counts import Counts
from stoker.frontend.lanes import Lanes
from stoker.logs import get_logger
from stoker.wire.link import Link

INTERVAL_S: Final = 1.0
#: A process without requests reports so many times less often.
_IDLE_TURNS: Final = 5
_TIMEOUT_S: Final = 5.0

log = get_logger("http")


class Reporting:
    """One process's reports.

    Args:
        held: What it holds just now, by name.
    """

    def __init__(
        self, link: Link, lanes: Lanes, counts: Counts, held: Callable[[], dict[str, int]]
    ) -> None:
        self._link = link
        self._lanes = lanes
        self._counts = counts
        self._held = held

    async def run(self) -> None:
        """For ever."""
        turns = 0
        while True:
            await asyncio.sleep(INTERVAL_S)
            taken = self._counts.take()
            refused = self._lanes.take_refused()
            turns += 1
            if not (taken or refused) and turns < _IDLE_TURNS:
                continue
            turns = 0
            try:
                await self.call("report", taken, refused)
            except StokerError:
                # Without a supervisor nobody counts; it will be told later.
                continue
            except Exception:
                log.exception("a report failed")

    async def statistics(self) -> dict[str, Any]:
        """Everybody's numbers, ours up to this moment.  Raises StokerError."""
        return await self.call("statistics", self._counts.take(), self._lanes.take_refused())

    async def call(
        self, verb: str, taken: dict[str, Any], refused: list[list[Any]]
    ) -> dict[str, Any]:
        report = {"process": os.getpid(), "held": self._held(), "refused": refused, **taken}
        try:
            return await self._link.call(verb, {"report": report}, _TIMEOUT_S)
        except StokerError:
            self._counts.give_back(taken)
            raise
