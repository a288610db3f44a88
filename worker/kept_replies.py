"""What a worker has answered lately, in case the supervisor dies with it.

A reply that was sent may lie unread in the socket of a supervisor that is
dead, or may have left it and not reached the frontend.  So the last ones are
kept: as many as a supervisor can have in hand at once, while that is not much
memory.  A frontend that gets an answer twice drops the second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from stoker.wire.frames import Group, Reply
from stoker.worker.answers import LooseFrame

#: Several times what a worker is given ahead.
MAX_REPLIES: Final = 256
MAX_BYTES: Final = 4 << 20


class KeptReplies:
    """The last replies, oldest first; of larger ones only which jobs they ended."""

    def __init__(self) -> None:
        self._replies: deque[tuple[int, Reply]] = deque()
        self._bytes = 0
        #: Batches in hand that have answered in part: their last reply is not the whole answer.
        self._torn: set[int] = set()

    def __iter__(self) -> Iterator[Reply]:
        return iter([_packed(reply) for _, reply in self._replies])

    def tear(self, batch_id: int) -> None:
        """Pieces of this batch's answers are on their way, and cannot be kept."""
        self._torn.add(batch_id)

    def add(self, replies: list[Reply]) -> int:
        """Take note of what is about to be sent.  Returns how many bytes of answers it is."""
        kept = self._replies
        total = 0
        for reply in replies:
            size = 0
            for group in reply[3]:
                size += len(group[1])
            total += size
            if not reply[1]:
                continue
            is_torn = reply[0] in self._torn
            if is_torn:
                self._torn.remove(reply[0])
            if is_torn or size > MAX_BYTES:
                kept.append((0, Reply(reply[0], True, reply[2], [])))
            else:
                kept.append((size, reply))
                self._bytes += size
        while len(kept) > MAX_REPLIES or self._bytes > MAX_BYTES:
            self._bytes -= kept.popleft()[0]
        return total


def _packed(reply: Reply) -> Reply:
    """A reply that may travel as it is."""
    groups = [
        Group(frontend_id, frame.packed() if isinstance(frame, LooseFrame) else frame)
        for frontend_id, frame in reply.groups
    ]
    return reply._replace(groups=groups)
