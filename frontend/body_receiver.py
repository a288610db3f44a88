"""A large body on its way from the socket straight into the arena.

While it arrives, this stands in the connection's place at the transport: the
kernel writes where the worker will read, past the parser and its pieces.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Room(Protocol):
    """Where a body is to be written."""

    def room(self) -> memoryview: ...
    def arrived(self, size: int) -> None: ...


class Replaced(Protocol):
    """The connection in whose place this stands."""

    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class BodyReceiver(asyncio.BufferedProtocol):
    """Receives exactly as much as there is room for."""

    def __init__(self, body: Room, connection: Replaced) -> None:
        self._body = body
        self._connection = connection

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._body.room()

    def buffer_updated(self, nbytes: int) -> None:
        self._body.arrived(nbytes)

    def eof_received(self) -> None:
        """The client sends no more, so its body stays cut off: let the transport close."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
