"""One submitted job, as whoever waits for its answer sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from stoker.errors import Cancelled, StokerError
from stoker.wire.frames import SubmittedJob
from stoker.wire.payloads import Answer

OnEnd = Callable[[Answer | StokerError], None]


class Canceller(Protocol):
    """Who submitted it: a `Link`."""

    def cancel(self, job_id: bytes) -> None:
        """Forget a job here and tell the supervisor."""


class Pending:
    """One submitted job, as its waiter sees it.

    Either somebody awaits `next`, or `on_answer` was called right after
    submitting and every answer goes to that callback.
    """

    __slots__ = (
        "_answers",
        "_callback",
        "_link",
        "_on_end",
        "_waiter",
        "deadline",
        "has_ended",
        "has_pieces",
        "job",
        "job_id",
    )

    def __init__(
        self, link: Canceller, job: SubmittedJob, deadline: float, on_end: OnEnd | None = None
    ) -> None:
        self.job = job
        self.job_id = job[0]
        self._on_end = on_end
        #: A stream has begun, which nobody but its worker can go on with.
        self.has_pieces = False
        #: Infinite once the first piece of a stream is there: that is wanted.
        self.deadline = deadline
        self.has_ended = False
        self._link = link
        self._answers: deque[Answer | StokerError] | None = None
        self._callback: Callable[[Answer | StokerError], None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def on_answer(self, callback: Callable[[Answer | StokerError], None] | None) -> None:
        """Have every further answer given to `callback`; None: keep them for `next`."""
        self._callback = callback

    async def next(self) -> Answer:
        """The final answer, or the next piece of a streamed one.

        Raises:
            StokerError: The job ended with an error, was refused, cancelled,
                or the supervisor was lost.
        """
        if not self._answers:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        assert self._answers
        answer = self._answers.popleft()
        if isinstance(answer, StokerError):
            try:
                raise answer
            finally:
                del answer  # its traceback has this frame
        return answer

    def cancel(self) -> None:
        """Nobody wants the answer any more; a waiter gets Cancelled.  Harmless after the end."""
        if not self.has_ended:
            self._link.cancel(self.job_id)
            self.put(Cancelled("The client left."), is_last=True)

    def put(self, answer: Answer | StokerError, *, is_last: bool) -> None:
        self.has_ended = is_last
        if is_last and self._on_end is not None:
            self._on_end(answer)
        callback = self._callback
        if callback is not None:
            if is_last:
                self._callback = None  # it holds us as we hold it
            callback(answer)
            return
        if self._answers is None:
            self._answers = deque()
        self._answers.append(answer)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
