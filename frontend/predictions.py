"""Predictions: a request becomes a job, its answer becomes a response.

The hot path of the whole server: one responder, no task, timer or lock per
request.  A client that leaves cancels its job through the connection.

Source: contracts/torchserve.md 2.1, 2.3, 2.5-2.7.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from falcon.asgi import Request, Response

from stoker.clock import Clock
from stoker.errors import BadHandlerResult, Cancelled, StokerError
from stoker.frontend.answers import answer_problem, exchange_of
from stoker.frontend.bodies import read_parameters
from stoker.frontend.dialect import Dialect
from stoker.frontend.exchange import FRAMING_NAMES, Exchange, header_line
from stoker.frontend.limits import Limits
from stoker.frontend.routes import Prediction
from stoker.wire.frames import JobFlag
from stoker.wire.link import Link, Pending
from stoker.wire.payloads import Answer, AnswerKind, pack_request

TIMEOUT_HEADER: Final = "X-Request-Timeout-Ms"
_NO_FLAGS: Final = JobFlag.NONE.value


class Predictions:
    """Falcon's responder for one kind of prediction route."""

    def __init__(
        self, link: Link, dialect: Dialect, limits: Limits, clock: Clock, kind: Prediction
    ) -> None:
        self._link = link
        self._dialect = dialect
        self._limits = limits
        self._clock = clock
        self._added = kind.headers
        self._has_url_path = kind.has_url_path
        self._patience_s = dialect.settings.request_deadline_s

    async def answer(
        self,
        request: Request,
        response: Response,
        model_name: str,
        model_version: str | None = None,
        rest: str = "",
    ) -> None:
        """Send the job, wait for its answer, shape the response."""
        exchange = exchange_of(request)
        pending: Pending | None = None
        try:
            deadline = self._clock.now() + self._patience(request)
            payload = self._payload(exchange, request.content_type, rest)
            pending = self._link.submit(model_name, model_version, deadline, _NO_FLAGS, payload)
            del payload  # the link keeps it as long as it is of use
            exchange.on_left = lambda: _abandon(pending)
            answer = await pending.next()
            self._start(exchange, response, answer)
            if answer.kind is AnswerKind.CHUNK:
                response.stream = _pieces(pending, answer)
            else:
                response.data = answer.body
        except StokerError as error:
            if pending is not None:
                pending.cancel()
            subject = {"model": model_name, "version": model_version}
            answer_problem(request, response, self._dialect, error, "predict", subject)

    def _payload(self, exchange: Exchange, content_type: str | None, rest: str) -> bytes:
        parameters = read_parameters(content_type, exchange.take_body(), self._limits)
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers
        }
        headers.update(self._added)
        if self._has_url_path:
            headers["url_path"] = rest
        return pack_request(exchange.request_id, [*headers.items()], parameters)

    def _patience(self, request: Request) -> float:
        """Seconds until nobody wants the answer: the setting, or less if the client says so."""
        asked = request.get_header(TIMEOUT_HEADER)
        if asked is None or not (asked.isascii() and asked.isdigit() and len(asked) < 10):
            return self._patience_s
        return min(self._patience_s, int(asked) / 1000)

    def _start(self, exchange: Exchange, response: Response, answer: Answer) -> None:
        """Status, reason and headers as the handler set them, and nothing invented."""
        status = answer.status
        if not 200 <= status <= 599:
            raise BadHandlerResult(f"The handler set the impossible status {status}.")
        # 413 belongs to request bodies alone (1.6).
        response.status = 507 if status == 413 else status
        exchange.reason = answer.reason.encode("latin-1", "replace")
        if answer.content_type is None and not answer.headers:
            return
        fixed = self._dialect.fixed_names
        lines: dict[bytes, bytes] = {}
        for spelled, value in answer.headers:
            name = spelled.encode("latin-1", "replace")
            lowered = name.lower()
            if lowered not in fixed and lowered not in FRAMING_NAMES:
                lines[lowered] = header_line(name, value.encode("latin-1", "replace"))
        if answer.content_type is not None:
            content_type = answer.content_type.encode("latin-1", "replace")
            lines.pop(b"content-type", None)
            lines = {b"content-type": header_line(b"content-type", content_type), **lines}
        exchange.extra_head = b"".join(lines.values())
        exchange.extra_names = frozenset(lines)


def _abandon(pending: Pending | None) -> None:
    """The client left: free the worker's time and our waiter."""
    if pending is not None and not pending.has_ended:
        pending.cancel()
        pending.put(Cancelled("The client left."), is_last=True)


async def _pieces(pending: Pending, first: Answer) -> AsyncIterator[bytes]:
    """The bodies of a streamed answer; an error ends the connection, not the stream."""
    try:
        answer = first
        while answer.kind is AnswerKind.CHUNK:
            yield answer.body
            answer = await pending.next()
        yield answer.body
    finally:
        pending.cancel()
