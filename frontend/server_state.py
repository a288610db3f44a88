"""Whose end a server waits for when it stops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stoker.frontend.connection import Connection


class ServerState:
    """What is open and under way in one process.

    Attributes:
        is_draining: Requests that begin now are refused.
    """

    __slots__ = ("connections", "is_draining", "tasks")

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_draining = False

    @property
    def is_busy(self) -> bool:
        """Something that was accepted is not answered yet."""
        return bool(self.tasks) or any(connection.is_busy for connection in self.connections)
