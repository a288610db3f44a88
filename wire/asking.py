"""One management verb asked of a supervisor on this host, by a tool that does nothing else."""

from __future__ import annotations

import select
import time
from pathlib import Path
from typing import Any

import zmq

from stoker.errors import SupervisorUnavailable, from_wire
from stoker.wire import codec, frames
from stoker.wire.job_ids import new_frontend_id
from stoker.wire.runtime_dir import answers_address, frontend_address
from stoker.wire.sockets import connect_dealer
from stoker.wire.stream import PeerGone, Stream


def ask(
    runtime_dir: Path, verb: str, arguments: dict[str, Any], timeout_s: float
) -> dict[str, Any]:
    """What the supervisor answers.

    It says no hello, so nobody takes it for a frontend that comes and goes.

    Raises:
        StokerError: What the supervisor answered, or SupervisorUnavailable.
    """
    asking = Asking(runtime_dir, timeout_s)
    try:
        return asking.ask(verb, arguments)
    finally:
        asking.close()


class Asking:
    """The two ways of one who asks: there, and back.

    Raises:
        SupervisorUnavailable: No server runs there.
    """

    def __init__(self, runtime_dir: Path, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        identity = new_frontend_id()
        try:
            self._answers = Stream(answers_address(runtime_dir), timeout_s)
        except PeerGone:
            raise SupervisorUnavailable("No server runs there.") from None
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._socket = connect_dealer(self._context, frontend_address(runtime_dir), identity)
        try:
            self._answers.send(codec.encode(frames.FrontendListens(frames.PROTOCOL, identity)))
        except PeerGone:
            self.close()
            raise SupervisorUnavailable("No server runs there.") from None

    def ask(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Raises StokerError: the supervisor's, or SupervisorUnavailable."""
        try:
            self.say(frames.Call(1, verb, arguments))
            while True:
                for said in self.hear():
                    if isinstance(said, frames.Result):
                        if said.code is not None:
                            raise from_wire(said.code, said.message, said.value)
                        return said.value
        except PeerGone:
            raise SupervisorUnavailable("The server was stopped before it answered.") from None

    def say(self, message: frames.FromFrontend) -> None:
        """Raises SupervisorUnavailable when nobody takes it in time."""
        if not self._socket.poll(self._left_ms(), zmq.POLLOUT):
            raise self._silence()
        self._socket.send(codec.encode(message))

    def hear(self) -> list[frames.ToFrontend]:
        """What comes next.

        Raises:
            SupervisorUnavailable: Nothing comes in time.
            PeerGone: Nothing will come.
        """
        if not self._poll.poll(self._left_ms()):
            raise self._silence()
        return [codec.decode_to_frontend(frame) for frame in self._answers.receive()]

    def close(self) -> None:
        self._answers.close()
        self._socket.close(0)
        self._context.term()

    def _left_ms(self) -> int:
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def _silence(self) -> SupervisorUnavailable:
        return SupervisorUnavailable("The server does not answer.", waited_s=self._timeout_s)
