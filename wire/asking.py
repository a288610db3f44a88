"""One management verb asked of a supervisor on this host, by a tool that does nothing else."""

from __future__ import annotations

import os
import time
from typing import Any

import zmq

from stoker.errors import SupervisorUnavailable, from_wire
from stoker.wire import codec, frames
from stoker.wire.job_ids import new_frontend_id
from stoker.wire.sockets import connect_dealer


def ask(address: str, verb: str, arguments: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """What the supervisor answers.

    It says no hello, so nobody takes it for a frontend that comes and goes.

    Raises:
        StokerError: What the supervisor answered, or SupervisorUnavailable.
    """
    if not os.path.exists(address.removeprefix("ipc://")):
        raise SupervisorUnavailable("No server runs there.")
    deadline = time.monotonic() + timeout_s
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    socket = connect_dealer(context, address, new_frontend_id())
    try:
        while _wait(socket, zmq.POLLOUT, deadline):
            socket.send(codec.encode(frames.Call(1, verb, arguments)))
            while _wait(socket, zmq.POLLIN, deadline):
                said = codec.decode_to_frontend(socket.recv())
                if not isinstance(said, frames.Result):
                    continue
                if said.code is not None:
                    raise from_wire(said.code, said.message, said.value)
                return said.value
        raise SupervisorUnavailable("The server does not answer.", waited_s=timeout_s)
    finally:
        socket.close(0)
        context.term()


def _wait(socket: zmq.Socket[bytes], event: int, deadline: float) -> bool:
    left_ms = int((deadline - time.monotonic()) * 1000)
    return left_ms > 0 and bool(socket.poll(left_ms, event))
