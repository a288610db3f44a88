"""Opening the zmq sockets on which frontends ask the supervisor, safely.

High-water marks and MAXMSGSIZE keep peers bounded (design section 3).  Nothing
is ever sent the other way: see `downlink.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import zmq

from stoker.wire.limits import MAX_FRAME_BYTES

#: As a plain integer: pyzmq's enums cost half a microsecond each time they are combined.
NOBLOCK: Final = int(zmq.NOBLOCK)
#: Messages a socket holds for a peer that does not read.  Admission keeps the
#: number of jobs far below; reaching it means the peer is stuck.
HIGH_WATER: Final = 65_536
#: ZMTP heartbeats notice a stopped process (SIGSTOP), which a dead one's
#: closed socket cannot.
HEARTBEAT_MS: Final = 5_000
HEARTBEAT_TIMEOUT_MS: Final = 30_000


def remove_file(address: str) -> None:
    """Take away the file of a closed `ipc://` socket: zmq leaves it behind.

    Only for whoever holds the folder's lock; anybody else's file may be a
    successor's.
    """
    Path(address.removeprefix("ipc://")).unlink(missing_ok=True)


def bind_router(
    context: zmq.Context[zmq.Socket[bytes]], address: str, max_frame_bytes: int = MAX_FRAME_BYTES
) -> zmq.Socket[bytes]:
    """The supervisor's side.

    Args:
        max_frame_bytes: Whoever sends more is disconnected before it is read.
    """
    socket = context.socket(zmq.ROUTER)
    # A restarted peer never re-uses an identity, so a second one is not ours.
    socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
    _common(socket)
    socket.setsockopt(zmq.MAXMSGSIZE, max_frame_bytes)
    socket.bind(address)
    return socket


def connect_dealer(
    context: zmq.Context[zmq.Socket[bytes]], address: str, identity: bytes
) -> zmq.Socket[bytes]:
    """A frontend's side; sends nothing before the connection stands."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, 20)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 100)
    _common(socket)
    socket.connect(address)
    return socket


def _common(socket: zmq.Socket[bytes]) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)


#: Above this zmq's own thread may send from our buffer; below, copying is cheaper.
ZERO_COPY_BYTES: Final = 256 << 10


def is_worth_sharing(frame: bytes) -> bool:
    return len(frame) >= ZERO_COPY_BYTES
