"""Whose end a server waits for when it stops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stoker.frontend.connection import Connection


class ServerState:
    """What is open and under way in one process."""

    __slots__ = ("connections", "tasks")

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
