"""What the connections of one listener share, and what they answer by themselves.

Source: contracts/torchserve.md 1.3 and 1.6.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Final, Protocol

from stoker.errors import RequestTooLarge, StokerError
from stoker.frontend.asgi import AsgiApp
from stoker.frontend.bodies import BodyBudget
from stoker.frontend.dialect import Dialect
from stoker.frontend.express import Express
from stoker.frontend.guard import Guard, HttpsOnly
from stoker.frontend.limits import Limits
from stoker.frontend.problems import JSON_TYPE, render_json
from stoker.wire.arena import Arena

#: The peer's answer to a large body has no body of its own, and no headers of ours.
_TOO_LARGE: Final = (
    b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)
_PHRASES: Final = {
    400: b"Bad Request",
    403: b"Forbidden",
    408: b"Request Timeout",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}


class Swept(Protocol):
    """A connection, as the sweep over all of them needs it."""

    @property
    def transport(self) -> asyncio.Transport: ...
    def sweep(self, now: float) -> None: ...


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
        logs_access: Whether the access log is on at all.
    """

    app: AsgiApp
    dialect: Dialect
    limits: Limits
    budget: BodyBudget
    express: Express | None = None
    guard: Guard | HttpsOnly | None = None
    arena: Arena | None = None
    cors: tuple[tuple[bytes, bytes], ...] = ()
    tls: ssl.SSLContext | None = None
    plain: Site | None = None
    logs_access: bool = False
    connections: set[Swept] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.is_tls = self.tls is not None
        self.fixed_head = self.dialect.fixed_head
        self.fixed_names = self.dialect.fixed_names

    def refusal(self, error: StokerError, request_id: str) -> bytes:
        """A whole answer for a request that never reaches the application."""
        if isinstance(error, RequestTooLarge):
            return _TOO_LARGE
        problem = self.dialect.problem(error)
        body = render_json(self.dialect.error_document(problem))
        retry = problem.retry_after_s
        return b"".join(
            (
                b"HTTP/1.1 %d %b\r\n" % (problem.status, _PHRASES.get(problem.status, b"")),
                b"content-type: %b\r\n" % JSON_TYPE.encode(),
                b"x-request-id: %b\r\n" % request_id.encode(),
                self.fixed_head,
                b"" if retry is None else b"retry-after: %d\r\n" % retry,
                *(line for _, line in self.cors),
                b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body),
                body,
            )
        )
