"""One client's connection: whole requests in, answers out, one after the other.

Reading is ours and not the server's: a request reaches the application when
its body is complete, so slow senders cost no task, a refused one is refused
before its body is read, and nothing is woken per piece.  `head_reader.py` and
`body_reader.py` read; here is decided who is answered, who waits, who is
refused and whose connection ends.  Timeouts are checked by one sweep over all
connections, not by a timer each.

Source: contracts/torchserve.md 1.2, 1.6; design sections 5 and 6.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, NoReturn, cast

import httptools

from stoker.errors import ShuttingDown, StokerError, TooManyRequests, forget_frames
from stoker.frontend.access_log import log_event
from stoker.frontend.body_reader import MAX_SKIPPED_BYTES, BodyReader
from stoker.frontend.exchange import Exchange
from stoker.frontend.flow_control import FlowControl
from stoker.frontend.head_reader import HeadReader
from stoker.frontend.patience import Patience, Wait
from stoker.frontend.problems import BodyTooSlow, HeadTooSlow, MalformedHttp
from stoker.frontend.refusals import Refusal
from stoker.frontend.request_ids import choose_request_id
from stoker.frontend.server_state import ServerState
from stoker.frontend.site import Site
from stoker.logs import get_logger

log = get_logger("http")

_END_OF_HEAD: Final = b"\r\n\r\n"
#: From here on it is worth looking for the end of the head before parsing.
_SPLIT_BYTES: Final = 16 * 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
#: A refused client that goes on talking is heard for so many times `linger_s`.
_LINGERINGS: Final = 10


class Connection(asyncio.Protocol):
    """One connection; lives on the loop of its process."""

    __slots__ = (
        "_answered_at_once",
        "_body",
        "_deaf_since",
        "_heads",
        "_in_hand",
        "_is_deaf",
        "_is_draining",
        "_patience",
        "_waiting",
        "flow",
        "loop",
        "server_state",
        "site",
        "transport",
    )

    transport: asyncio.Transport
    flow: FlowControl

    def __init__(self, server_state: ServerState, site: Site) -> None:
        self.loop = asyncio.get_running_loop()
        self.server_state = server_state
        self.site = site
        self._body = BodyReader(self)
        self._heads = HeadReader(self, self._body.on_body, site.limits)
        self._in_hand: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._is_deaf = False
        self._is_draining = server_state.is_draining
        #: Requests refused since the loop last called us.
        self._answered_at_once = 0
        self._patience = Patience(self.loop.time())
        self._deaf_since = 0.0

    # -- the transport --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.flow = FlowControl(self.transport)
        self.server_state.connections.add(self)
        site = self.site
        if len(site.connections) >= site.limits.connections:
            site.turned_away += 1
            self._write(site.crowded, b"", choose_request_id(None), closes=True)
            self._go_deaf()
            self.transport.close()
            return
        site.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server_state.connections.discard(self)
        self.site.connections.discard(self)
        self._is_deaf = True
        if self._in_hand is not None:
            self._in_hand.leave()
            self._in_hand.release(self.site.budget)
        for exchange in self._waiting:
            exchange.release(self.site.budget)
        self._waiting.clear()
        self._body.close()
        self.flow.resume_writing()
        self._heads.close()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            self._patience.since = None
            return
        self._answered_at_once = 0
        rest: bytes | memoryview = data
        while rest and not self._is_deaf:
            rest = self._feed(rest)
        if self._body.is_filling:
            self._body.receive_directly()

    def eof_received(self) -> None:
        """The client sends no more: let the transport close."""

    def pause_writing(self) -> None:
        # Who does not take answers shall not ask for more.
        self.flow.pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        self._resume_reading()

    def _resume_reading(self) -> None:
        if not self._waiting and not self.flow.write_paused:
            self.flow.resume_reading()

    @property
    def is_read_paused(self) -> bool:
        return self.flow.read_paused

    # -- reading --------------------------------------------------------------

    def _feed(self, data: bytes | memoryview) -> bytes | memoryview:
        """Read some of it; return what is left."""
        if self._body.is_filling:
            return self._body.fill(data)
        if len(data) < _SPLIT_BYTES or self._body.exchange is not None or type(data) is not bytes:
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
            return self._heads.feed(data)
        except (httptools.HttpParserError, StokerError) as stopped:
            forget_frames(stopped)
            if not self._is_deaf:
                self._refuse(MalformedHttp())
            return b""

    def on_head(self) -> None:
        """A head is complete: refuse what can be refused now, before the body is read."""
        heads, site = self._heads, self.site
        self._patience.since = None
        if self._is_draining:
            self._turn_away()
        if site.guard is not None:
            refused = site.guard.refusal(heads.method, heads.url, heads.headers)
            if refused is not None:
                self.stop_parsing(refused)
        way = None if site.express is None else site.express.way(heads.method, heads.url)
        if way is not None and site.lanes.closed and self._is_free:
            lane = site.lanes.refusing(way.key)
            if lane is not None:
                self._decline(site.full(lane))
                return
        model = "" if way is None else way.model
        length = heads.length
        if length is not None and (error := self._body.refuses(length, model)):
            if isinstance(error, TooManyRequests) and self._is_free:
                self._decline(site.refusal(error))
                return
            self.stop_parsing(error)
        exchange = Exchange(
            self,
            heads.take(),
            choose_request_id(heads.offered_id),
            self.loop.time(),
            close_after=self._is_draining or heads.is_last,
        )
        exchange.way = way
        self._body.begin(exchange, length, model)
        if heads.expects_continue and exchange.version != "1.0" and self._is_free:
            self.transport.write(_CONTINUE)

    def on_message_complete(self) -> None:
        self._heads.is_in_message = False
        self._patience.since = None
        exchange = self._body.take()
        if exchange is None:
            return
        if self._in_hand is None:
            self._answer(exchange)
            return
        self._waiting.append(exchange)
        self.flow.pause_reading()
        if len(self._waiting) > self.site.limits.pipelined_requests:
            self.stop_parsing(MalformedHttp())

    def body_filled(self) -> None:
        """The body of a large request is complete, and the parser has not seen it."""
        self._heads.renew()
        try:
            self.on_message_complete()
        except StokerError as refused:  # and answered
            forget_frames(refused)

    # -- exchanges ------------------------------------------------------------

    @property
    def _is_free(self) -> bool:
        """An answer to what is being read could be written now."""
        return self._in_hand is None and not self._waiting

    def _answer(self, exchange: Exchange) -> None:
        # Every request passes here with its head and body complete.
        self._in_hand = exchange
        express = self.site.express
        if express is not None and express.take(exchange):
            return
        task = self.loop.create_task(exchange.run(self.site.app))
        tasks = self.server_state.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def end_exchange(self, exchange: Exchange, *, is_counted: bool = False) -> None:
        """The answer has been written."""
        self._in_hand = None
        self._patience.since = None
        site = self.site
        exchange.release(site.budget)
        if not is_counted:
            site.counts.answers[exchange.status // 100] += 1
        if site.logs_access or site.access_log is not None:
            taken_s = self.loop.time() - exchange.started_at
            head = (exchange.request_id, exchange.method, exchange.url, exchange.version)
            self._log_access(*head, exchange.status, taken_s)
        if exchange.close_after:
            self._is_deaf = True
            self.transport.close()
        elif self._waiting:
            self._answer(self._waiting.popleft())
        else:
            self._resume_reading()

    def cut(self, exchange: Exchange) -> None:
        """End an answer whose beginning is out, so that the client sees it is not whole."""
        exchange.close_after = True
        self.end_exchange(exchange)

    def refuse_exchange(self, exchange: Exchange, error: StokerError) -> None:
        """Answer for an application that did not."""
        exchange.close_after = True
        refusal = self.site.refusal(error)
        exchange.status = refusal.status
        self._write(refusal, exchange.method, exchange.request_id, closes=True)
        self.end_exchange(exchange, is_counted=True)

    def _log_access(
        self,
        request_id: str,
        method: bytes,
        url: bytes,
        version: str,
        status: int,
        taken_s: float,
    ) -> None:
        site = self.site
        if site.access_log is not None:
            site.access_log.note(self.transport, method, url, version, status, taken_s)
        if site.logs_access:
            log_event(request_id, method, url, status, taken_s)

    # -- refusing -------------------------------------------------------------

    def _decline(self, refusal: Refusal) -> None:
        """Refuse for want of room the request whose head has just been read.

        Nothing is wrong with it, so the connection stays, unless too much of
        the request is still to come: then the client had better save it.
        """
        heads = self._heads
        self._answered_at_once += 1
        is_kept = (
            (heads.length or 0) <= MAX_SKIPPED_BYTES
            and not heads.expects_continue
            and not heads.is_last
            and not self._is_draining
            and self._answered_at_once <= self.site.limits.pipelined_requests
        )
        request_id = choose_request_id(heads.offered_id)
        self._write(refusal, heads.method, request_id, closes=not is_kept)
        if self.site.logs_access or self.site.access_log is not None:
            head = (request_id, heads.method, heads.url, "1.1")
            self._log_access(*head, refusal.status, 0.0)
        if is_kept:
            self._body.skip()
        else:
            self.hang_up()

    def hang_up(self) -> NoReturn:
        """From inside a parser callback: say no more, and stop the parser by raising."""
        self._end_writing()
        self._go_deaf()
        raise TooManyRequests

    def stop_parsing(self, error: StokerError) -> NoReturn:
        """From inside a parser callback: refuse, and stop the parser by raising."""
        self._refuse(error)
        raise error

    def _refuse(self, error: StokerError) -> None:
        if self._in_hand is not None:
            # Another answer is on its way out; ours must not mix with it.
            self._in_hand.close_after = True
        else:
            refusal = self.site.refusal(error)
            request_id = choose_request_id(self._heads.offered_id)
            self._write(refusal, self._heads.method, request_id, closes=True)
            self._end_writing()
        log.info("a request was refused", code=error.code)
        self._go_deaf()

    def _turn_away(self) -> NoReturn:
        """A request that begins while the server drains; answered where nothing is in hand.

        Behind one in hand it is not: its client reads `connection: close` before, and
        knows that nothing was done about it.
        """
        error = ShuttingDown("The server is stopping; try another one.")
        if self._is_free:
            self._refuse(error)
        self._is_deaf = True
        raise error

    def _write(self, refusal: Refusal, method: bytes, request_id: str, *, closes: bool) -> None:
        self.site.counts.refused(refusal.status, refusal.code)
        rendered = refusal.render(request_id, closes=closes)
        self.transport.write(refusal.head_of(rendered) if method == b"HEAD" else rendered)

    def _end_writing(self) -> None:
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _go_deaf(self) -> None:
        """Read on and ignore: closing over unread bytes would reset our answer away."""
        self._is_deaf = True
        self._deaf_since = self.loop.time()
        self._body.drop()
        for exchange in self._waiting:
            exchange.release(self.site.budget)
        self._waiting.clear()
        self._body.receive_through_parser()
        self.flow.resume_reading()

    # -- time -----------------------------------------------------------------

    def sweep(self, now: float) -> int:
        """Close what has taken too long; called about once a second.

        Returns how many bytes of answers the client has not taken yet.
        """
        unsent = self.transport.get_write_buffer_size()
        if self._patience.stalled_s(unsent, now) > self.site.limits.stall_timeout_s:
            self.transport.abort()
        elif self._in_hand is None and not self.transport.is_closing():
            self._check_wait(now)
        return unsent

    def _check_wait(self, now: float) -> None:
        limits = self.site.limits
        wait = self._what_for()
        waited_s = self._patience.waited_s(wait, now)
        if wait is Wait.REQUEST:
            if waited_s > limits.idle_timeout_s:
                self.transport.close()
        elif wait is Wait.HEAD or wait is Wait.REST:
            if waited_s > limits.header_timeout_s:
                self._give_up_head()
        elif wait is Wait.BODY:
            exchange = self._body.exchange
            assert exchange is not None
            allowed_s = exchange.received_bytes / limits.body_rate_bytes
            if now - exchange.started_at > limits.body_timeout_s + allowed_s:
                self._refuse(BodyTooSlow("The request body did not arrive in time."))
        elif waited_s > limits.linger_s or now - self._deaf_since > _LINGERINGS * limits.linger_s:
            self.transport.abort()

    def _what_for(self) -> Wait:
        if self._is_deaf:
            return Wait.LEAVING
        if self._body.exchange is not None:
            return Wait.BODY
        if self._body.is_skipping:
            return Wait.REST
        return Wait.HEAD if self._heads.is_open else Wait.REQUEST

    def _give_up_head(self) -> None:
        if self._heads.is_in_message and not self._body.is_skipping:
            self._refuse(HeadTooSlow("The head of the request did not arrive in time."))
        else:
            self.transport.abort()  # it has said nothing, or has been answered

    def drain(self) -> None:
        """The server stops: finish what has begun to come, take nothing new."""
        self._is_draining = True
        last = self._body.exchange
        if last is None:
            last = self._waiting[-1] if self._waiting else self._in_hand
        if last is not None:
            last.close_after = True

    @property
    def is_busy(self) -> bool:
        """A request that was accepted has not ended, or its answer has not left."""
        return (
            self._in_hand is not None
            or self._body.exchange is not None
            or self.transport.get_write_buffer_size() > 0
        )

    def end(self) -> None:
        """Nothing is awaited here any more; who was refused may still read why."""
        if not self._is_deaf:
            self._is_deaf = True
            self.transport.close()
