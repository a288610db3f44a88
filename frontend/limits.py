"""What one frontend process accepts from strangers, in numbers.

Every limit stands before a parser: a line, a header, a body, a form, a
connection that says nothing.  What an operator may want to change comes from
the settings; the rest is fixed here and only tests change it.

Source: contracts/torchserve.md 1.6 (400, 413), design section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stoker.settings import KIB, Settings

#: What a process opens beside connections: sockets of ours, arena, libraries.
_OTHER_FILES: Final = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one frontend process.

    Attributes:
        body_memory_bytes: For all bodies at once, of which `arena_bytes` may be
            shared memory.
        header_timeout_s: A connection must have sent a whole head by then.
        body_timeout_s: Grace for a body; afterwards its average rate must be
            at least `body_rate_bytes` per second.
        idle_timeout_s: A connection between two requests is closed then.
        stall_timeout_s: A client that takes nothing of its answer for so long
            is cut off.
        linger_s: How long a refused client may still talk into the void, so
            that it reads our answer instead of a reset.
        pipelined_requests: Requests that may wait behind the one in hand.
        headers: Header fields of one request.
    """

    request_line_bytes: int = 4 * KIB
    header_bytes: int = 8 * KIB
    headers: int = 256
    body_bytes: int = 6_553_500
    body_memory_bytes: int = 1024 * KIB * KIB
    arena_bytes: int = 512 * KIB * KIB
    header_timeout_s: float = 20.0
    body_timeout_s: float = 30.0
    body_rate_bytes: int = 8 * KIB
    idle_timeout_s: float = 75.0
    stall_timeout_s: float = 60.0
    linger_s: float = 3.0
    sweep_interval_s: float = 1.0
    connections: int = 16_384
    pipelined_requests: int = 32
    form_parts: int = 1000
    part_header_bytes: int = 8 * KIB

    @classmethod
    def from_settings(
        cls, settings: Settings, processes: int = 1, descriptors: int | None = None
    ) -> Limits:
        """The share that each of so many processes has.

        Args:
            descriptors: Files that one process may open; None: as many as it likes.
        """
        connections = settings.max_connections
        if descriptors is not None:
            # One crowded listener must leave files for the others.
            usable = max(1, descriptors - _OTHER_FILES)
            connections = min(connections, max(1, usable * 3 // 4))
        return cls(
            request_line_bytes=settings.max_request_line,
            header_bytes=settings.max_header_size,
            body_bytes=settings.max_request_size,
            body_memory_bytes=max(1, settings.max_body_memory_bytes // processes),
            arena_bytes=settings.arena_max_bytes // processes,
            header_timeout_s=settings.head_timeout_s,
            body_timeout_s=settings.body_timeout_s,
            body_rate_bytes=settings.min_body_rate_bytes,
            idle_timeout_s=settings.keep_alive_timeout_s,
            stall_timeout_s=settings.stall_timeout_s,
            connections=connections,
        )
