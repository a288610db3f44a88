"""One request and its answer on one connection.

The ASGI side of the server: Falcon sees a scope, a whole body and a `send`;
the app reaches what ASGI has no place for through `scope["stoker.exchange"]`:
the client's spelling of headers, the request id, a reason phrase, the
handler's own header lines, and a call when the client leaves.

Source: contracts/torchserve.md 1.3 for the order and spelling of headers.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from stoker.errors import Internal, ShuttingDown, StokerError
from stoker.frontend.asgi import AsgiApp, Message, Scope, request_scope
from stoker.frontend.counts import Counts
from stoker.frontend.flow_control import FlowControl
from stoker.frontend.head_reader import RequestHead
from stoker.frontend.header_lines import CONTROL, FRAMING_NAMES, header_line
from stoker.frontend.lanes import Holding
from stoker.frontend.pieces import Pieces
from stoker.logs import get_logger
from stoker.shares import Budget
from stoker.wire.arena import Slot
from stoker.wire.arena_layout import Descriptor
from stoker.wire.payloads import Answer, AnswerKind
from stoker.wire.pending import Pending

if TYPE_CHECKING:
    from stoker.frontend.express import Way

SCOPE_KEY: Final = "stoker.exchange"

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in http.HTTPStatus
}
_KEEP_ALIVE: Final = b"connection: keep-alive\r\n\r\n"
_CLOSE: Final = b"connection: close\r\n\r\n"
#: Above this, head and body are handed over separately instead of being joined.
_JOIN_BYTES: Final = 16 * 1024

log = get_logger("http")


class StandingHeaders(Protocol):
    """What every answer of a listener carries, and where it is counted; see `Site`."""

    @property
    def fixed_head(self) -> bytes: ...
    @property
    def fixed_names(self) -> frozenset[bytes]: ...
    @property
    def cors(self) -> tuple[tuple[bytes, bytes], ...]: ...
    @property
    def counts(self) -> Counts: ...


class Carrier(Protocol):
    """The connection, as its exchanges need it."""

    @property
    def site(self) -> StandingHeaders: ...
    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def flow(self) -> FlowControl: ...
    def end_exchange(self, exchange: Exchange) -> None: ...
    def cut(self, exchange: Exchange) -> None: ...
    def refuse_exchange(self, exchange: Exchange, error: StokerError) -> None: ...


class Exchange:
    """What the application and the connection share about one request."""

    __slots__ = (
        "body",
        "close_after",
        "connection",
        "content_type",
        "delivered",
        "extra_head",
        "extra_names",
        "has_left",
        "head",
        "headers",
        "holding",
        "is_chunked",
        "is_complete",
        "is_head_only",
        "is_started",
        "keeps_open",
        "method",
        "on_left",
        "patience",
        "pieces",
        "reason",
        "received_bytes",
        "request_id",
        "reserved_bytes",
        "scope",
        "slot",
        "started_at",
        "status",
        "url",
        "version",
        "wake",
        "way",
    )

    def __init__(
        self,
        connection: Carrier,
        head: RequestHead,
        request_id: str,
        started_at: float,
        *,
        close_after: bool,
    ) -> None:
        self.connection = connection
        self.method, self.url, self.version, self.headers, self.content_type, self.patience = head
        #: Where the short way leads; None for a request that cannot take it.
        self.way: Way | None = None
        #: Built when an application is asked; a prediction on the short way has none.
        self.scope: Scope | None = None
        self.request_id = request_id
        self.started_at = started_at
        self.close_after = close_after
        #: The connection stays open after an error, too: it was not about this request.
        self.keeps_open = False
        #: Empty if the body is in the arena: then it is in `slot`.
        self.body = b""
        self.slot: Slot | None = None
        #: A body that came in more than one, while it comes.
        self.pieces: Pieces | None = None
        self.received_bytes = 0
        self.reserved_bytes = 0
        self.holding: Holding | None = None
        #: Reason phrase; None for the standard one.
        self.reason: bytes | None = None
        #: Header lines ready for the wire, and their lower-case names.
        self.extra_head = b""
        self.extra_names: frozenset[bytes] = frozenset()
        #: Called once if the client leaves before its answer is complete.
        self.on_left: Callable[[], None] | None = None
        self.has_left = False
        self.status = 0
        self.is_started = False
        self.is_complete = False
        self.is_chunked = False
        self.is_head_only = False
        self.delivered: dict[str, Any] | None = None
        self.head = b""
        self.wake: asyncio.Future[None] | None = None

    def body_to_send(self) -> bytes | Descriptor:
        """The body as a payload wants it; one in the arena stays there until the end."""
        return self.take_body() if self.slot is None else self.slot.descriptor

    def take_body(self) -> bytes:
        """The body, which nobody else holds afterwards: it may be large."""
        if self.slot is not None:
            return bytes(self.slot.view)
        body, self.body = self.body, b""
        if self.delivered is not None:
            self.delivered["body"] = b""
        return body

    @property
    def lower_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers with lower-case names."""
        return [(name.lower(), value) for name, value in self.headers]

    # -- its body in memory ---------------------------------------------------

    def reserve(self, budget: Budget, size: int, holding: Holding | None) -> bool:
        """Take room for so much of the body, on its model's account; False if there is none."""
        if not budget.take(size, 0 if holding is None else holding.body_bytes):
            return False
        self.reserved_bytes += size
        if holding is not None:
            holding.body_bytes += size
        return True

    def release(self, budget: Budget) -> None:
        """Give back what its body took."""
        budget.give_back(self.reserved_bytes)
        if self.holding is not None:
            self.holding.body_bytes -= self.reserved_bytes
            self.holding = None
        self.reserved_bytes = 0
        if self.slot is not None:
            self.slot.free()
            self.slot = None

    # -- for the connection ---------------------------------------------------

    async def run(self, app: AsgiApp) -> None:
        """Let the application answer; whatever it does, the client gets an end."""
        carrier = self.connection
        if self.has_left or carrier.transport.is_closing():
            return  # a task begins a turn later than it is made
        scope = self.scope = request_scope(
            self.method,
            self.url,
            self.version,
            self.lower_headers,
            carrier.transport,
        )
        scope[SCOPE_KEY] = self
        try:
            await app(scope, self.receive, self.send)
            if not self.is_complete and not self.has_left:
                log.error("a request was left unanswered", request_id=self.request_id)
                self._give_up(Internal())
        except asyncio.CancelledError:
            self._give_up(ShuttingDown("The server is stopping."))
            raise
        except StokerError as error:
            # Only a stream fails here: its first piece has set the status.
            if not self.has_left:
                log.info("a stream broke off", request_id=self.request_id, code=error.code)
            self._give_up(error)
        except Exception:
            log.exception("a request failed", request_id=self.request_id)
            self._give_up(Internal())
        finally:
            # The scope holds us and we hold the scope: do not wait for the collector.
            scope.pop(SCOPE_KEY, None)

    def write_whole(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Write a whole answer now, for who needs no application."""
        if not self._has_ended():
            self._start(status, headers)
            self._write(body, has_more=False)

    async def run_stream(self, status: int, pending: Pending, first: Answer) -> None:
        """Write a streamed answer, piece by piece, as fast as the client reads."""
        try:
            self._start(status, [])
            answer = first
            while True:
                has_more = answer.kind is AnswerKind.CHUNK
                flow = self.connection.flow
                if flow.write_paused:
                    await flow.drain()
                if self._has_ended():
                    return
                self._write(answer.body, has_more=has_more)
                if not has_more:
                    return
                answer = await pending.next()
        except StokerError as error:
            # Only the stream can fail here: its first piece has set the status.
            if not self.has_left:
                log.info("a stream broke off", request_id=self.request_id, code=error.code)
            self._give_up(error)
        except Exception:
            log.exception("a stream failed", request_id=self.request_id)
            self._give_up(Internal())
        finally:
            pending.cancel()

    def leave(self) -> None:
        """The connection is gone."""
        if self.is_complete or self.has_left:
            return
        self.has_left = True
        self._wake_receiver()
        if self.on_left is not None:
            self.on_left()

    def _give_up(self, error: StokerError) -> None:
        if self.is_complete or self.has_left:
            return
        if self.is_started and not self.head:
            # Part of the answer is out: only a missing end tells the truth.
            self.is_complete = True
            self.connection.cut(self)
        else:
            self.is_complete = True
            self.connection.refuse_exchange(self, error)

    # -- ASGI -----------------------------------------------------------------

    async def receive(self) -> Message:
        """The whole body at once; the next call waits for the client to leave.

        One in the arena comes with the second call: Falcon calls once for
        every request, and again only for who wants the body.
        """
        if self.delivered is None:
            is_elsewhere = self.slot is not None
            self.delivered = {"type": "http.request", "body": self.body, "more_body": is_elsewhere}
            return self.delivered
        if self.delivered["more_body"] and self.slot is not None:
            self.delivered["more_body"] = False
            return {"type": "http.request", "body": bytes(self.slot.view), "more_body": False}
        if not self.is_complete and not self.has_left:
            self.wake = asyncio.get_running_loop().create_future()
            await self.wake
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Head and first piece leave together."""
        if self._has_ended():
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message["headers"])
            return
        flow = self.connection.flow
        if flow.write_paused:
            await flow.drain()
        if not self._has_ended():
            self._write(message.get("body", b""), has_more=message.get("more_body", False))

    def _has_ended(self) -> bool:
        return self.has_left or self.is_complete

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        site = self.connection.site
        if self.reason is None:
            line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        else:
            line = b"HTTP/1.1 %d %b\r\n" % (status, CONTROL.sub(b" ", self.reason))
        lines = [line]
        length = None
        for name, value in headers:
            if name == b"content-length":
                length = value
            elif (
                name not in FRAMING_NAMES
                and name not in site.fixed_names
                and name not in self.extra_names  # a handler's own is stronger
            ):
                lines.append(header_line(name, value))
        if self.extra_head:
            lines.append(self.extra_head)
        lines.append(b"x-request-id: %b\r\n" % self.request_id.encode())
        lines.append(site.fixed_head)
        for name, cors in site.cors:
            if name not in self.extra_names:
                lines.append(cors)
        self.is_head_only = self.method == b"HEAD" or status in (204, 304)
        self.close_after = self.close_after or (status >= 400 and not self.keeps_open)
        if length is not None:
            lines.append(b"content-length: %b\r\n" % length)
        elif not self.is_head_only:
            if self.version == "1.0":
                self.close_after = True  # the end of the connection is the end of the body
            else:
                self.is_chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(_CLOSE if self.close_after else _KEEP_ALIVE)
        self.status = status
        self.is_started = True
        self.head = b"".join(lines)

    def _write(self, body: bytes, *, has_more: bool) -> None:
        head, self.head = self.head, b""
        if self.is_head_only:
            pieces = [head]
        elif self.is_chunked:
            pieces = [head]
            if body:
                pieces += (b"%x\r\n" % len(body), body, b"\r\n")
            if not has_more:
                pieces.append(b"0\r\n\r\n")
        else:
            pieces = [head, body]
        transport = self.connection.transport
        if len(body) > _JOIN_BYTES:
            transport.writelines(pieces)
        elif joined := b"".join(pieces):
            transport.write(joined)
        if not has_more:
            self.is_complete = True
            self._wake_receiver()
            self.connection.end_exchange(self)

    def _wake_receiver(self) -> None:
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)
