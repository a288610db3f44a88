"""One look at all connections a second, instead of a timer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from stoker.frontend.site import Site, Swept
from stoker.logs import get_logger

#: A look takes a microsecond or two.
_AT_A_TIME: Final = 512

log = get_logger("http")


async def sweep_connections(sites: Iterable[Site], now: float, max_unsent_bytes: int) -> None:
    """Close what has taken too long, and whose answers take too much memory.

    Of many connections some at a time: they are looked at in passing.

    Args:
        max_unsent_bytes: What all answers together may take that are written
            and not yet taken by their clients.
    """
    unsent: list[tuple[int, Swept]] = []
    for site in sites:
        if site.turned_away:
            limit = site.limits.connections
            log.warning("too many connections", limit=limit, turned_away=site.turned_away)
            site.turned_away = 0
        for index, connection in enumerate(list(site.connections)):
            if index % _AT_A_TIME == _AT_A_TIME - 1:
                await asyncio.sleep(0)
            try:
                size = connection.sweep(now)
            except Exception:
                # One broken connection must not end the sweep for all.
                log.exception("a connection could not be checked")
                connection.transport.abort()
                continue
            if size:
                unsent.append((size, connection))
    held = sum(size for size, _ in unsent)
    if held > max_unsent_bytes:
        _cut_longest(unsent, held, max_unsent_bytes)


def _cut_longest(unsent: list[tuple[int, Swept]], held: int, limit: int) -> None:
    count = 0
    for size, connection in sorted(unsent, key=lambda each: -each[0]):
        if held <= limit:
            break
        connection.transport.abort()
        held -= size
        count += 1
    log.warning("clients that do not take their answers were cut off", connections=count)
