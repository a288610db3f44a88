"""One client's connection: HTTP bytes in, whole requests out, limits before parsers.

Built on uvicorn's httptools protocol for its place in the server, but reading
is ours: a request reaches the application when its body is complete, so slow
senders cost no task, a refused one is refused before its body is read, and
nothing is woken per piece.  Timeouts are checked by one sweep over all
connections, not by a timer each.

Source: contracts/torchserve.md 1.2, 1.6; design sections 5 and 6.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import deque
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from stoker.errors import RequestTooLarge, StokerError, TooManyRequests
from stoker.frontend.bodies import may_be_form
from stoker.frontend.body_receiver import BodyReceiver
from stoker.frontend.exchange import Exchange, RequestHead
from stoker.frontend.problems import BodyTooSlow, MalformedHttp
from stoker.frontend.request_ids import choose_request_id
from stoker.frontend.site import Site
from stoker.frontend.submission import TIMEOUT_HEADER
from stoker.logs import get_logger
from stoker.wire.arena import MIN_BODY_BYTES

log = get_logger("http")
access = get_logger("access")

#: " HTTP/1.1" and the blank before the target.
_LINE_OVERHEAD: Final = 10
_END_OF_HEAD: Final = b"\r\n\r\n"
#: From here on it is worth looking for the end of the head before parsing.
_SPLIT_BYTES: Final = 16 * 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Phase(enum.Enum):
    """What the connection reads next."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    #: Refused: we have answered and ignore what still comes.
    DEAF = "deaf"


class Connection(HttpToolsProtocol):
    """One connection; lives on the loop of its process."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], site: Site
    ) -> None:
        super().__init__(config, server_state, app_state, asyncio.get_running_loop())
        self.site = site
        self._phase = _Phase.HEAD
        self._since = self.loop.time()
        self._reading: Exchange | None = None
        self._in_hand: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._is_draining = False
        self._method = b""
        self._url = b""
        self._raw_headers: list[tuple[bytes, bytes]] = []
        self._lower_headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._unparsed_bytes = 0
        self._length: int | None = None
        self._expects_continue = False
        self._offered_id: bytes | None = None
        self._content_type: bytes | None = None
        self._patience: bytes | None = None
        self._unsent_bytes = 0
        self._stalled_since: float | None = None
        self._receiver: BodyReceiver | None = None
        self._is_receiving = False

    # -- the transport --------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.site.connections) >= self.site.limits.connections:
            log.warning("too many connections", limit=self.site.limits.connections)
            self._go_deaf()
            transport.abort()
            return
        self.site.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.site.connections.discard(self)
        self._phase = _Phase.DEAF
        if self._in_hand is not None:
            self._in_hand.leave()
        for exchange in (self._in_hand, self._reading, *self._waiting):
            self._release(exchange)
        self._reading = None
        self._waiting.clear()
        self.flow.resume_writing()
        self.parser = None  # type: ignore[assignment]  # it holds us

    def data_received(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while rest and self._phase is not _Phase.DEAF:
            rest = self._feed(rest)
        reading = self._reading
        if reading is not None and reading.slot is not None:
            self._receive_directly()

    def _feed(self, data: bytes | memoryview) -> bytes | memoryview:
        """Read some of it; return what is left."""
        if self._reading is not None and self._reading.slot is not None:
            return self._fill_slot(data)
        if len(data) < _SPLIT_BYTES or self._phase is _Phase.BODY or type(data) is not bytes:
            return self._parse(data)
        # What follows the head may belong into the arena; spare it the parser.
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        if not len(_END_OF_HEAD) <= end < len(data):
            return self._parse(data)
        whole = memoryview(data)
        again = self._parse(whole[:end])
        return bytes(again) + whole[end:] if again else whole[end:]

    def _parse(self, data: bytes | memoryview) -> bytes | memoryview:
        """Parse; return what must be parsed again."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser leaves the body to the new protocol, but nothing here
            # is upgraded: let a fresh one read the request without the offer.
            self._renew_parser()
            return self._head_without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError:
            if self._phase is not _Phase.DEAF:
                self._refuse(MalformedHttp())
            return b""
        if self._phase is _Phase.HEAD:
            # A header that never ends is not shown to `on_header`.
            self._unparsed_bytes += len(data)
            limits = self.site.limits
            if self._unparsed_bytes > limits.request_line_bytes + 2 * limits.header_bytes:
                self._refuse(MalformedHttp())
        return b""

    def _renew_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%b %b HTTP/1.1" % (self._method, self._url)]
        for name, value in self._raw_headers:
            lowered = name.lower()
            if lowered == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                value = b", ".join(token for token in tokens if token.lower() != b"upgrade")
            if lowered != b"upgrade":
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join(lines) + b"\r\n\r\n"

    # -- the parser -----------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._phase is _Phase.IDLE:
            self._since = self.loop.time()
        self._phase = _Phase.HEAD
        self._url = b""
        self._raw_headers = []
        self._lower_headers = []
        self._head_bytes = 0
        self._unparsed_bytes = 0
        self._length = None
        self._expects_continue = False
        self._offered_id = None
        self._content_type = None
        self._patience = None

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) + _LINE_OVERHEAD > self.site.limits.request_line_bytes:
            self._stop_parsing(MalformedHttp())

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self.site.limits.header_bytes:
            self._stop_parsing(MalformedHttp())
        lowered = name.lower()
        self._raw_headers.append((name, value))
        self._lower_headers.append((lowered, value))
        if lowered == b"content-length":
            # The parser has checked the digits.
            self._length = int(value)
        elif lowered == b"expect":
            self._expects_continue = value.lower() == b"100-continue"
        elif lowered == b"content-type":
            self._content_type = value
        elif lowered == b"x-request-id":
            self._offered_id = value
        elif lowered == TIMEOUT_HEADER:
            self._patience = value

    def on_headers_complete(self) -> None:
        parser = self.parser
        method = parser.get_method()
        limits = self.site.limits
        if parser.should_upgrade():
            if method == b"CONNECT":
                self._stop_parsing(MalformedHttp())
            self._method = method
            return
        if len(method) + len(self._url) + _LINE_OVERHEAD > limits.request_line_bytes:
            self._stop_parsing(MalformedHttp())
        if self._length is not None and self._length > limits.body_bytes:
            self._stop_parsing(RequestTooLarge())
        guard = self.site.guard
        if guard is not None and (refused := guard.refusal(self._url, self._lower_headers)):
            self._stop_parsing(refused)
        version = parser.get_http_version()
        exchange = Exchange(
            self,
            RequestHead(
                method,
                self._url,
                version,
                self._raw_headers,
                self._lower_headers,
                self._content_type,
                self._patience,
            ),
            choose_request_id(self._offered_id),
            self.loop.time(),
            close_after=version == "1.0" or self._is_draining or not parser.should_keep_alive(),
        )
        self._reading = exchange
        self._phase = _Phase.BODY
        if self._length:
            self._reserve(exchange, self._length)
            arena = self.site.arena
            if (
                self._length >= MIN_BODY_BYTES
                and arena is not None
                and not may_be_form(self._content_type)
            ):
                exchange.slot = arena.take(self._length)
        if self._expects_continue and version != "1.0" and self._in_hand is None:
            self.transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        exchange = self._reading
        if exchange is None:
            return
        exchange.received_bytes += len(body)
        if exchange.received_bytes > exchange.reserved_bytes:  # chunked: no length told
            if exchange.received_bytes > self.site.limits.body_bytes:
                self._stop_parsing(RequestTooLarge())
            self._reserve(exchange, exchange.received_bytes - exchange.reserved_bytes)
        if exchange.slot is not None:
            end = exchange.received_bytes
            exchange.slot.view[end - len(body) : end] = body
        else:
            exchange.chunks.append(body)

    def on_message_complete(self) -> None:
        exchange = self._reading
        if exchange is None:
            return
        self._reading = None
        self._phase = _Phase.IDLE
        self._since = self.loop.time()
        if exchange.slot is None:
            chunks = exchange.chunks
            exchange.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            exchange.chunks = []
        if self._in_hand is None:
            self._answer(exchange)
            return
        self._waiting.append(exchange)
        self.flow.pause_reading()
        if len(self._waiting) > self.site.limits.pipelined_requests:
            self._stop_parsing(MalformedHttp())

    # -- bodies in the arena --------------------------------------------------

    def _fill_slot(self, data: bytes | memoryview) -> memoryview:
        """Read what follows the head of a large request without the parser."""
        room = self.body_room()
        taken = memoryview(data)[: len(room)]
        room[: len(taken)] = taken
        rest = memoryview(data)[len(taken) :]
        self.body_arrived(len(taken))
        return rest

    def body_room(self) -> memoryview:
        """Where the rest of the body belongs."""
        exchange = self._reading
        assert exchange is not None
        assert exchange.slot is not None
        return exchange.slot.view[exchange.received_bytes :]

    def body_arrived(self, size: int) -> None:
        """So much has been written to `body_room`."""
        exchange = self._reading
        assert exchange is not None
        exchange.received_bytes += size
        if exchange.received_bytes < exchange.reserved_bytes:
            return
        # The old one still waits for this body.
        self._renew_parser()
        self._receive_through_parser()
        with contextlib.suppress(StokerError):  # refused, and answered
            self.on_message_complete()

    def _receive_directly(self) -> None:
        # TLS hands out copies anyway, and who does not read gets nothing.
        if not self._is_receiving and not self.site.is_tls and not self.flow.read_paused:
            if self._receiver is None:
                self._receiver = BodyReceiver(self)
            self._is_receiving = True
            self._change_protocol(self._receiver)

    def _receive_through_parser(self) -> None:
        if self._is_receiving:
            self._is_receiving = False
            self._change_protocol(self)

    def _change_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        transport = self.transport
        transport.set_protocol(protocol)
        if not transport.is_closing():
            # How to read is decided when reading starts.
            transport.pause_reading()
            transport.resume_reading()

    # -- exchanges ------------------------------------------------------------

    def _answer(self, exchange: Exchange) -> None:
        # Every request passes here with its head and body complete.
        self._in_hand = exchange
        if self.site.express is not None and self.site.express.take(exchange):
            return
        task = self.loop.create_task(exchange.run(self.site.app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def end_exchange(self, exchange: Exchange) -> None:
        """The answer has been written."""
        self.server_state.total_requests += 1
        self._in_hand = None
        self._release(exchange)
        if self.site.logs_access:
            self._log_access(exchange)
        if exchange.close_after:
            self._phase = _Phase.DEAF
            self.transport.close()
        elif self._waiting:
            self._answer(self._waiting.popleft())
        else:
            self._since = self.loop.time()
            self.flow.resume_reading()

    def cut(self, exchange: Exchange) -> None:
        """End an answer whose beginning is out, so that the client sees it is not whole."""
        exchange.close_after = True
        self.end_exchange(exchange)

    def refuse_exchange(self, exchange: Exchange, error: StokerError) -> None:
        """Answer for an application that did not."""
        exchange.close_after = True
        self.transport.write(self.site.refusal(error, exchange.request_id))
        self.end_exchange(exchange)

    def _reserve(self, exchange: Exchange, size: int) -> None:
        if not self.site.budget.take(size):
            self._stop_parsing(
                TooManyRequests("Too many request bodies are in memory; try again later.")
            )
        exchange.reserved_bytes += size

    def _release(self, exchange: Exchange | None) -> None:
        if exchange is not None:
            self.site.budget.give_back(exchange.reserved_bytes)
            exchange.reserved_bytes = 0
            if exchange.slot is not None:
                exchange.slot.free()
                exchange.slot = None

    def _log_access(self, exchange: Exchange) -> None:
        access.debug(
            "request",
            request_id=exchange.request_id,
            method=exchange.method.decode("ascii"),
            path=exchange.url.partition(b"?")[0].decode("utf-8", "replace"),
            status=exchange.status,
            duration_ms=round((self.loop.time() - exchange.started_at) * 1000, 3),
        )

    # -- refusing -------------------------------------------------------------

    def _stop_parsing(self, error: StokerError) -> None:
        """From inside a parser callback: refuse, and stop the parser by raising."""
        self._refuse(error)
        raise error

    def _refuse(self, error: StokerError) -> None:
        if self._in_hand is not None:
            # Another answer is on its way out; ours must not mix with it.
            self._in_hand.close_after = True
        else:
            self.transport.write(self.site.refusal(error, choose_request_id(self._offered_id)))
            if self.transport.can_write_eof():
                self.transport.write_eof()
        log.info("a request was refused", code=error.code)
        self._go_deaf()

    def _go_deaf(self) -> None:
        """Read on and ignore: closing over unread bytes would reset our answer away."""
        self._phase = _Phase.DEAF
        self._since = self.loop.time()
        for exchange in (self._reading, *self._waiting):
            self._release(exchange)
        self._reading = None
        self._waiting.clear()
        self._receive_through_parser()
        self.flow.resume_reading()

    # -- time -----------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Close what has taken too long; called about once a second."""
        limits = self.site.limits
        waited_s = now - self._since
        if self._is_stalled(now):
            self.transport.abort()
        elif self._in_hand is not None:
            return
        elif self._phase is _Phase.IDLE:
            if waited_s > limits.idle_timeout_s:
                self.transport.close()
        elif self._phase is _Phase.HEAD:
            if waited_s > limits.header_timeout_s:
                self.transport.abort()
        elif self._phase is _Phase.BODY:
            assert self._reading is not None
            allowed_s = self._reading.received_bytes / limits.body_rate_bytes
            if now - self._reading.started_at > limits.body_timeout_s + allowed_s:
                self._refuse(BodyTooSlow("The request body did not arrive in time."))
        elif waited_s > limits.linger_s:
            self.transport.abort()

    def _is_stalled(self, now: float) -> bool:
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent_bytes or self._stalled_since is None:
            self._stalled_since = now if unsent else None
            self._unsent_bytes = unsent
            return False
        self._unsent_bytes = unsent
        return now - self._stalled_since > self.site.limits.stall_timeout_s

    def shutdown(self) -> None:
        """The server drains: finish what is in hand, take nothing new."""
        self._is_draining = True
        if self._in_hand is not None:
            if not self._waiting:
                self._in_hand.close_after = True
            else:
                self._waiting[-1].close_after = True
        elif self._reading is not None:
            self._reading.close_after = True
        else:
            self.transport.close()
