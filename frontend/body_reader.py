"""The body of the request that a connection reads: where it goes, how large it may be.

A large one goes into the arena, where possible straight from the socket; any
other is kept in the pieces in which it comes.  Of the memory that all bodies
share it takes what has really arrived, so that a client which announces much
and sends little keeps nobody out.

Source: contracts/torchserve.md 1.6; design section 3.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from stoker.errors import InvalidBody, RequestTooLarge, StokerError, TooManyRequests
from stoker.frontend.bodies import may_be_form
from stoker.frontend.body_receiver import BodyReceiver
from stoker.frontend.exchange import Exchange
from stoker.frontend.pieces import Pieces
from stoker.frontend.site import Site
from stoker.wire.arena import MIN_BODY_BYTES

#: A body in more pieces than this must have so many bytes in each of them.
MAX_TINY_PIECES: Final = 8192
MIN_PIECE_BYTES: Final = 64
#: The body of a refused request is read to its end, and dropped, up to this size.
MAX_SKIPPED_BYTES: Final = 64 * 1024


class BodyOwner(Protocol):
    """A connection, as its body reader needs it."""

    @property
    def site(self) -> Site: ...
    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def is_read_paused(self) -> bool: ...
    def stop_parsing(self, error: StokerError) -> None: ...
    def hang_up(self) -> None: ...
    def body_filled(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class BodyReader:
    """Reads one body after the other, each into its exchange.

    Attributes:
        exchange: The request whose body is being read.
        is_skipping: Its request was refused already.
    """

    __slots__ = (
        "_is_receiving",
        "_most_bytes",
        "_owner",
        "_receiver",
        "_skipped_bytes",
        "exchange",
        "is_skipping",
    )

    def __init__(self, owner: BodyOwner) -> None:
        self._owner = owner
        self.exchange: Exchange | None = None
        self.is_skipping = False
        self._most_bytes = 0
        self._skipped_bytes = 0
        self._receiver: BodyReceiver | None = None
        self._is_receiving = False

    # -- one body -------------------------------------------------------------

    def refuses(self, length: int, model: str) -> StokerError | None:
        """Why a body of this length cannot come; None if it can, as things are."""
        site = self._owner.site
        if length > site.most_body_bytes:
            return RequestTooLarge()
        own = 0 if length < MIN_BODY_BYTES else site.lanes.holding(model).body_bytes
        return None if site.budget.has_room(length, own) else _no_room()

    def begin(self, exchange: Exchange, length: int | None, model: str) -> None:
        """A head has been read; None: nobody has said how long the body is."""
        self.exchange = exchange
        site = self._owner.site
        if length is None:
            self._most_bytes = site.most_body_bytes
            exchange.holding = site.lanes.holding(model)
            return
        self._most_bytes = length
        if length < MIN_BODY_BYTES:
            return
        holding = exchange.holding = site.lanes.holding(model)
        if site.arena is None or may_be_form(exchange.content_type):
            return
        exchange.slot = site.arena.take(length)
        # The room is in use from now on, however slowly it is filled.
        if exchange.slot is not None and not exchange.reserve(site.budget, length, holding):
            self._owner.stop_parsing(_no_room())

    def skip(self) -> None:
        self.is_skipping = True
        self._skipped_bytes = 0

    def on_body(self, body: bytes) -> None:
        exchange = self.exchange
        size = len(body)
        if exchange is None:
            self._skipped_bytes += size
            if self._skipped_bytes > MAX_SKIPPED_BYTES:
                self._owner.hang_up()
            return
        exchange.received_bytes += size
        if exchange.received_bytes > self._most_bytes:  # chunked: no length told
            self._owner.stop_parsing(RequestTooLarge())
        if exchange.slot is not None:
            end = exchange.received_bytes
            exchange.slot.view[end - size : end] = body
            return
        if not exchange.reserve(self._owner.site.budget, size, exchange.holding):
            self._owner.stop_parsing(_no_room())
        if not exchange.body:
            exchange.body = body  # almost always the only one
        else:
            self._append(exchange, body)

    def _append(self, exchange: Exchange, body: bytes) -> None:
        pieces = exchange.pieces
        if pieces is None:
            pieces = exchange.pieces = Pieces(exchange.body)
        pieces.add(body)
        count = pieces.count
        if count >= MAX_TINY_PIECES and exchange.received_bytes < MIN_PIECE_BYTES * count:
            self._owner.stop_parsing(InvalidBody("The body comes in too many tiny pieces."))

    def take(self) -> Exchange | None:
        """The request whose body is complete; None for one that was refused before."""
        exchange, self.exchange = self.exchange, None
        self.is_skipping = False
        if exchange is not None and exchange.pieces is not None:
            exchange.body = exchange.pieces.join()
            exchange.pieces = None
        return exchange

    def drop(self) -> None:
        """Nobody wants it any more."""
        if self.exchange is not None:
            self.exchange.release(self._owner.site.budget)
            self.exchange = None

    def close(self) -> None:
        self.drop()
        self._receiver = None

    # -- bodies in the arena --------------------------------------------------

    @property
    def is_filling(self) -> bool:
        return self.exchange is not None and self.exchange.slot is not None

    def fill(self, data: bytes | memoryview) -> memoryview:
        """Take what follows the head of a large request, without the parser; return the rest."""
        room = self.room()
        taken = memoryview(data)[: len(room)]
        room[: len(taken)] = taken
        rest = memoryview(data)[len(taken) :]
        self.arrived(len(taken))
        return rest

    def room(self) -> memoryview:
        """Where the rest of the body belongs."""
        exchange = self.exchange
        assert exchange is not None
        assert exchange.slot is not None
        return exchange.slot.view[exchange.received_bytes :]

    def arrived(self, size: int) -> None:
        """So much has been written to `room`."""
        exchange = self.exchange
        assert exchange is not None
        exchange.received_bytes += size
        if exchange.received_bytes >= self._most_bytes:
            self.receive_through_parser()
            self._owner.body_filled()

    def receive_directly(self) -> None:
        # TLS hands out copies anyway, and who does not read gets nothing.
        owner = self._owner
        if not self._is_receiving and not owner.site.is_tls and not owner.is_read_paused:
            if self._receiver is None:
                self._receiver = BodyReceiver(self, owner)
            self._is_receiving = True
            self._change_protocol(self._receiver)

    def receive_through_parser(self) -> None:
        if self._is_receiving:
            self._is_receiving = False
            self._change_protocol(self._owner)  # type: ignore[arg-type]  # it is a protocol

    def _change_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        transport = self._owner.transport
        transport.set_protocol(protocol)
        if not transport.is_closing():
            # How to read is decided when reading starts.
            transport.pause_reading()
            transport.resume_reading()


def _no_room() -> TooManyRequests:
    return TooManyRequests("Too many request bodies are in memory; try again later.")
