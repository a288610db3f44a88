"""Finding the supervisor that comes after one that has died."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

from stoker.wire import codec
from stoker.wire.frames import FromWorker
from stoker.wire.stream import PeerGone, Stream
from stoker.worker.stop_signal import StopSignal

#: A supervisor that takes nothing for so long is not there any more.
SEND_DEADLINE_S: Final = 30.0
#: Between two looks: at first, and at most.
FIRST_PAUSE_S: Final = 0.01
LONGEST_PAUSE_S: Final = 0.1


class SupervisorGone(Exception):
    """It hung up, or took nothing within the deadline."""


def find_successor(
    address: str,
    introduce: Callable[[], Iterable[FromWorker]],
    stop: StopSignal,
    is_leaving: Callable[[], bool],
    until: float,
) -> Stream | None:
    """A connection to somebody who has been told who we are; None: told to leave meanwhile.

    Raises:
        SupervisorGone: There was nobody `until` then.
    """
    pause_s = FIRST_PAUSE_S
    while not is_leaving():
        if monotonic() >= until:
            raise SupervisorGone("no supervisor came for orphan_grace_s")
        stop.wait(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        try:
            stream = Stream(address, SEND_DEADLINE_S)
            for message in introduce():
                stream.send(codec.encode(message))
            return stream
        except PeerGone:
            continue
    return None
