"""What the connections of one listener share, and what they answer by themselves.

Source: contracts/torchserve.md 1.3 and 1.6.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Final, Protocol

from stoker.errors import QueueFull, RequestTooLarge, StokerError, TooManyRequests
from stoker.frontend.access_log import AccessLog
from stoker.frontend.asgi import AsgiApp
from stoker.frontend.counts import Counts
from stoker.frontend.dialect import Dialect
from stoker.frontend.express import Express
from stoker.frontend.guard import Door
from stoker.frontend.lanes import Key, Lane, Lanes
from stoker.frontend.limits import Limits
from stoker.frontend.problems import render_json
from stoker.frontend.refusals import EMPTY_413, Refusal
from stoker.shares import Budget
from stoker.wire.arena import Arena

#: Refusals kept ready.
_MAX_FULL: Final = 256


class Swept(Protocol):
    """A connection, as the sweep over all of them needs it."""

    @property
    def transport(self) -> asyncio.Transport: ...
    def sweep(self, now: float) -> int: ...


@dataclass(eq=False)
class Site:
    """What every connection of one listener shares.

    Attributes:
        express: The short way for predictions; None where there are none.
        guard: Looks at every head; None where everybody may come in.
        arena: Where large bodies of predictions go; None where there are none.
        cors: Lower-case header name and its line, where the settings ask for it.
        tls: What connections speak; None for plain HTTP.
        plain: For those who speak plain HTTP here all the same.
        logs_access: Every answer is an event of the server's log.
        access_log: Where else a line for every answer goes.
    """

    app: AsgiApp
    dialect: Dialect
    limits: Limits
    budget: Budget
    lanes: Lanes
    express: Express | None = None
    guard: Door | None = None
    arena: Arena | None = None
    cors: tuple[tuple[bytes, bytes], ...] = ()
    tls: ssl.SSLContext | None = None
    plain: Site | None = None
    logs_access: bool = False
    access_log: AccessLog | None = None
    counts: Counts = field(default_factory=Counts)
    connections: set[Swept] = field(default_factory=set)
    #: Connections that were one too many, since the last sweep.
    turned_away: int = 0

    def __post_init__(self) -> None:
        self.is_tls = self.tls is not None
        self.fixed_head = self.dialect.fixed_head
        self.fixed_names = self.dialect.fixed_names
        self.most_body_bytes = min(self.limits.body_bytes, self.budget.limit_bytes)
        self.crowded = self.refusal(TooManyRequests("Too many connections; try again later."))
        self._full: dict[tuple[Key, int], Refusal] = {}

    def refusal(self, error: StokerError) -> Refusal:
        """An answer for a request that never reaches the application."""
        if isinstance(error, RequestTooLarge):
            return EMPTY_413
        problem = self.dialect.problem(error)
        body = render_json(self.dialect.error_document(problem))
        return Refusal(problem, error.code, body, self)

    def full(self, lane: Lane) -> Refusal:
        """The answer to predictions that find the queue full; made once."""
        which = (lane.key, lane.retry_after_s)
        refusal = self._full.get(which)
        if refusal is None:
            if len(self._full) >= _MAX_FULL:
                self._full.clear()
            model, version = lane.key
            subject = {"model": model, "version": version}
            problem = self.dialect.problem(lane.full(), "predict", subject)
            body = render_json(self.dialect.error_document(problem))
            refusal = self._full[which] = Refusal(problem, QueueFull.code, body, self)
        return refusal
