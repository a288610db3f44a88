"""The supervisor of a worker that has many requests in hand: every job is a batch of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stoker.wire import frames as f
from stoker.wire import payloads


class BatchesOfOne:
    """Gives jobs by number, and hears what becomes of each.

    Attributes:
        replies: By number of the job.
        signs_of_life: Replies that had nothing in them.
    """

    def __init__(
        self, peer: Any, make_request: Callable[..., bytes], make_job_id: Callable[[int], bytes]
    ) -> None:
        self.peer = peer
        self._make_request = make_request
        self._make_job_id = make_job_id
        self._batch_id = 0
        self._batch_ids: dict[int, int] = {}
        self.replies: dict[int, list[f.Reply]] = {}
        self.signs_of_life = 0

    def give(
        self,
        number: int,
        body: bytes,
        request_id: str | None = None,
        deadline: float | None = None,
    ) -> None:
        self._batch_id += 1
        self._batch_ids[self._batch_id] = number
        self.replies.setdefault(number, [])
        payload = self._make_request(body, request_id=request_id or f"r{number}")
        job = f.WorkJob(self._make_job_id(number), payload)
        deadlines = None if deadline is None else [deadline]
        self.peer.send(f.Work([f.WorkBatch(self._batch_id, [job], deadlines)]))

    def drop(self, *numbers: int) -> None:
        self.peer.send(f.Drop([self._make_job_id(number) for number in numbers]))

    def hear(self) -> int:
        """The next reply; returns whose it is."""
        reply = self.peer.next_reply()
        number = self._batch_ids[reply.batch_id]
        self.replies[number].append(reply)
        self.signs_of_life += not reply.is_last and not reply.groups
        if reply.is_last:
            assert reply.ended == [self._make_job_id(number)]
            del self._batch_ids[reply.batch_id]
        return number

    def hear_end(self, *numbers: int) -> None:
        """Until these have ended."""
        while any(number in self._batch_ids.values() for number in numbers):
            self.hear()

    def answers(self, number: int) -> list[payloads.Answer]:
        return [
            answer
            for reply in self.replies[number]
            for group in reply.groups
            for answer in payloads.unpack_answers(group.frame)
        ]

    def text(self, number: int) -> str:
        return b"".join(answer.body for answer in self.answers(number)).decode()
