"""Ask the supervisor, await the answer, cancel: used by the frontend and by tools.

One Link per process.  It asks over ZeroMQ and is answered on a stream
(`downlink.py`).  Everything submitted in one turn of the loop leaves in one
message; answers wake their waiters without a task or timer per request.

A supervisor may die: what is unanswered is kept, within its deadline, and sent
again, with the same ids, to the successor that says Welcome.  What is submitted
meanwhile waits here too, for HOLD_S.  `contact.py` knows whether there is one.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import zmq

from stoker.clock import Clock, MonotonicClock
from stoker.errors import (
    Cancelled,
    DeadlineExceeded,
    ProtocolError,
    StokerError,
    SupervisorUnavailable,
    TooManyRequests,
    from_wire,
)
from stoker.logs import get_logger
from stoker.wire import codec, frames, sockets
from stoker.wire.calls import REPEATABLE, Calls, Restarted
from stoker.wire.contact import Contact, restarting
from stoker.wire.downlink import Downlink
from stoker.wire.job_ids import JobIds, new_frontend_id
from stoker.wire.lent_bodies import Handle, LentFrame
from stoker.wire.payloads import ATTEMPTS_HEADER, Answer, AnswerKind, unpack_answers
from stoker.wire.pending import OnEnd, Pending
from stoker.wire.runtime_dir import answers_address, frontend_address
from stoker.wire.sockets import NOBLOCK

log = get_logger("wire")

#: Without a supervisor for so long, nothing new is taken and what was not sent fails.
HOLD_S: Final = 10.0
#: Without one for so long, everything fails.
KEEP_S: Final = 60.0
#: One coarse look at all deadlines, instead of a timer per request.
SWEEP_S: Final = 0.25
#: At most so often the log says that large answers are lost.
COMPLAIN_EVERY_S: Final = 10.0
#: As a plain int: `|` with a flag costs a microsecond.
ENDS_IN_HAND: Final = int(frames.JobFlag.ENDS_IN_HAND)
SENT_AGAIN: Final = int(frames.JobFlag.SENT_AGAIN)


class Link:
    """A process's connection to the supervisor.

    Args:
        runtime_dir: Where the supervisor has its sockets.
        max_pending: Jobs that may wait here at once; above, `submit` refuses.
        frontend_id: From `new_frontend_id`, if somebody else must know it too.
    """

    def __init__(
        self,
        runtime_dir: Path,
        clock: Clock | None = None,
        max_pending: int = 4096,
        frontend_id: bytes | None = None,
    ) -> None:
        self._runtime_dir = runtime_dir
        self._clock = clock or MonotonicClock()
        self.max_pending = max_pending
        self.frontend_id = frontend_id or new_frontend_id()
        #: Called for every queue that is said to be full.
        self.on_full: Callable[[frames.FullQueue], None] | None = None
        self._new_job_id = JobIds(self.frontend_id).new
        self._pending: dict[bytes, Pending] = {}
        #: Attempts that failed, of pending jobs that are being tried again.
        self._retried: dict[bytes, int] = {}
        self._calls = Calls(self._send)
        self._outbox: list[frames.SubmittedJob] = []
        self._outbox_bytes = 0
        self._is_flush_due = False
        #: Of the supervisor that takes our jobs; None without one for HOLD_S.
        self._incarnation: bytes | None = None
        self._contact = Contact(self._clock, self._knock, self._give_up)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._downlink: Downlink | None = None
        #: A supervisor could not reach us for a while.
        self._was_lost = False
        self._complains_at = 0.0
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life -----------------------------------------------------------------

    async def start(self) -> None:
        """Connect on the running loop.  Returns at once; `wait_connected` waits."""
        self._loop = asyncio.get_running_loop()
        self._context = zmq.Context(io_threads=1)
        address = frontend_address(self._runtime_dir)
        self._socket = sockets.connect_dealer(self._context, address, self.frontend_id)
        self._downlink = Downlink(
            self._loop,
            answers_address(self._runtime_dir),
            self.frontend_id,
            self._receive,
            self._lose,
        )
        self._contact.seek(self._loop)

    async def wait_connected(self, timeout_s: float) -> None:
        """Raises SupervisorUnavailable when nobody welcomes us in time."""
        await self._contact.wait(timeout_s)

    @property
    def is_connected(self) -> bool:
        return self._incarnation is not None

    @property
    def incarnation(self) -> bytes | None:
        """Of the supervisor that welcomed us; None without one."""
        return self._incarnation

    @property
    def pending_count(self) -> int:
        return len(self._pending)

    async def close(self) -> None:
        """Leave at once; what is pending ends with Cancelled."""
        self._contact.close()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._fail_everything(Cancelled("The server is stopping."))
        if self._downlink is not None:
            self._downlink.close()
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None
        if self._context is not None:
            self._context.term()
            self._context = None

    # -- jobs -----------------------------------------------------------------

    def submit(
        self,
        model: str,
        version: str | None,
        deadline: float,
        flags: int,
        payload: bytes,
        *,
        ends_in_hand: bool = True,
        on_end: OnEnd | None = None,
    ) -> Pending:
        """Queue one job for the next message to the supervisor.

        While there is none, for HOLD_S, it waits for the successor.

        Args:
            ends_in_hand: The deadline holds for a job that a worker has taken
                up, too; else only `response_timeout` bounds it from then on.
            on_end: Called once with whatever ends the job, before its waiter hears.

        Raises:
            SupervisorUnavailable: No supervisor has welcomed us, or not for too long.
            TooManyRequests: `max_pending` jobs are waiting here already.
        """
        if self._incarnation is None:
            raise restarting()
        if len(self._pending) >= self.max_pending:
            raise TooManyRequests(
                "Too many requests are waiting; try again later.", limit=self.max_pending
            )
        job_id = self._new_job_id()
        if ends_in_hand:
            flags |= ENDS_IN_HAND
        job = frames.SubmittedJob(job_id, model, version, deadline, flags, payload)
        pending = Pending(self, job, deadline if ends_in_hand else math.inf, on_end)
        self._pending[job_id] = pending
        self._outbox.append(job)
        self._outbox_bytes += len(payload)
        if self._outbox_bytes >= frames.MAX_SUBMIT_BYTES:
            self._flush()
        if not self._is_flush_due:
            self._is_flush_due = True
            assert self._loop is not None
            self._loop.call_soon(self._flush)
            if self._sweep_timer is None:
                self._sweep_timer = self._loop.call_later(SWEEP_S, self._sweep)
        return pending

    def cancel(self, job_id: bytes) -> None:
        """Forget a job here and tell the supervisor."""
        if self._pending.pop(job_id, None) is None:
            return
        self._retried.pop(job_id, None)
        self._flush()
        self._send(frames.Cancel([job_id]))

    def _sweep(self) -> None:
        """End what has passed its deadline, wherever it is.

        The supervisor ends what it queues; what a worker has in hand, or
        waits behind that, may take long and only we still know of it.
        """
        now = self._clock.now()
        due = [pending for pending in self._pending.values() if pending.deadline <= now]
        if due:
            self._flush()
            self._send(frames.Cancel([pending.job_id for pending in due]))
            for pending in due:
                late = DeadlineExceeded("The request waited longer than its deadline allows.")
                self._end(pending.job_id, late)
        self._sweep_timer = None
        if self._pending and self._incarnation is not None:
            self._contact.say_hello()
        if self._pending:
            assert self._loop is not None
            self._sweep_timer = self._loop.call_later(SWEEP_S, self._sweep)

    async def call(self, verb: str, arguments: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """One management verb.

        Raises:
            StokerError: What the supervisor answered, or SupervisorUnavailable
                when it did not within `timeout_s`.
        """
        until = self._clock.now() + timeout_s
        while True:
            left_s = until - self._clock.now()
            if self._incarnation is None:
                raise restarting()
            await self._contact.wait(max(0.0, min(HOLD_S, left_s)))
            self._flush()  # what was submitted before is said before
            try:
                return await self._calls.ask(verb, arguments, max(0.0, left_s))
            except Restarted:
                if verb not in REPEATABLE:
                    raise SupervisorUnavailable(
                        "The supervisor was restarted before it answered; see what became of it."
                    ) from None

    # -- sending --------------------------------------------------------------

    def _flush(self) -> None:
        """Everything that was submitted in this turn of the loop."""
        self._is_flush_due = False
        if not self._outbox:
            return
        jobs, self._outbox = self._outbox, []
        self._outbox_bytes = 0
        if not self._send(frames.Submit(jobs)):
            # They wait for whoever takes them; cancelled ones are left out then.
            self._outbox = jobs

    def _knock(self, hello: frames.FrontendHello) -> None:
        # Who cannot reach us would not know what to do with it.
        if self._downlink is not None and self._downlink.open():
            self._send(hello)
        else:
            self._contact.cut()

    def _send(self, message: frames.FromFrontend) -> bool:
        if self._socket is None or self._downlink is None or not self._downlink.is_open:
            return False
        frame = codec.encode(message)
        try:
            self._socket.send(frame, NOBLOCK, copy=not sockets.is_worth_sharing(frame))
        except zmq.Again:
            self._contact.cut()
            return False
        return True

    def _give_up(self, cut_for_s: float) -> None:
        """Nothing waits for ever for a successor."""
        if cut_for_s > HOLD_S and self._incarnation is not None:
            self._incarnation = None
            unsent, self._outbox = self._outbox, []
            self._outbox_bytes = 0
            for job in unsent:
                self._end(job[0], restarting())
        if cut_for_s > KEEP_S and (self._pending or self._calls):
            self._fail_everything(SupervisorUnavailable("The supervisor does not answer."))

    # -- receiving ------------------------------------------------------------

    def _receive(self, frame: memoryview, handles: deque[Handle]) -> None:
        try:
            message = codec.decode_to_frontend(frame, handles)
        except ProtocolError:
            # Only the supervisor says anything here; a frame we cannot
            # read is one of another release.  Its hello will say so.
            return
        self._take(message)

    def _take(self, message: frames.ToFrontend) -> None:
        if isinstance(message, frames.Answers):
            for frame in message.frames:
                self._take_answers(frame)
        elif isinstance(message, frames.Refused):
            for job in message.jobs:
                self._end(job.job_id, from_wire(job.code, job.message, job.details))
        elif isinstance(message, frames.Retried):
            for retried in message.jobs:
                if retried.job_id in self._pending:
                    self._retried[retried.job_id] = retried.attempts
        elif isinstance(message, frames.Full):
            if self.on_full is not None:
                for queue in message.queues:
                    self.on_full(queue)
        elif isinstance(message, frames.Result):
            self._calls.take(message)
        else:
            self._welcome(message)

    def _take_answers(self, frame: frames.AnswerFrame) -> None:
        try:
            answers = self._unpack(frame)
        except ProtocolError:
            # One worker's rubbish; the other frames of the message are not its.
            return
        for answer in answers:
            self._answer(answer)

    def _unpack(self, frame: frames.AnswerFrame) -> list[Answer]:
        if isinstance(frame, LentFrame):
            with frame.opened() as file:
                if file is None:
                    self._complain()
                return unpack_answers(frame.frame, file)
        assert isinstance(frame, bytes)
        return unpack_answers(frame)

    def _complain(self) -> None:
        """Now and then: a process without descriptors has much to say already."""
        now = self._clock.now()
        if now >= self._complains_at:
            self._complains_at = now + COMPLAIN_EVERY_S
            log.warning(
                "large answers lost",
                reason="no descriptor or memory is free, here or in the supervisor",
                limit="RLIMIT_NOFILE",
            )

    def _answer(self, answer: Answer) -> None:
        if self._retried and (failed := self._retried.get(answer.job_id)):
            answer = _counted(answer, failed + 1)
        if answer.kind is AnswerKind.CHUNK:
            if (pending := self._pending.get(answer.job_id)) is not None:
                pending.deadline = math.inf
                pending.has_pieces = True
                pending.put(answer, is_last=False)
        elif answer.error is not None:
            self._end(answer.job_id, answer.error)
        else:
            self._end(answer.job_id, answer)

    def _end(self, job_id: bytes, outcome: Answer | StokerError) -> None:
        # A late answer for a forgotten job finds nobody, and that is fine.
        if (pending := self._pending.pop(job_id, None)) is not None:
            if self._retried:
                self._retried.pop(job_id, None)
            pending.put(outcome, is_last=True)

    def _lose(self) -> None:
        self._was_lost = True
        self._contact.cut()

    def _welcome(self, message: frames.Welcome) -> None:
        if self._contact.welcome(message.incarnation):
            self._send_again()
        elif self._was_lost:
            self._give_up_sent()
        self._was_lost = False
        self._incarnation = message.incarnation
        waiting, self._outbox = self._outbox, []
        self._outbox_bytes = 0
        self._send_all([job for job in waiting if job[0] in self._pending])

    def _send_again(self) -> None:
        """What the predecessor left unanswered; the successor knows what workers have in hand."""
        self._calls.end_all(Restarted())
        unsent = {job[0] for job in self._outbox}
        again: list[frames.SubmittedJob] = []
        for pending in list(self._pending.values()):
            job = pending.job
            if pending.has_pieces:
                broken = SupervisorUnavailable("The supervisor was restarted during the stream.")
                self._end(pending.job_id, broken)
            elif job[0] not in unsent:
                again.append(job._replace(flags=job.flags | SENT_AGAIN))
        self._send_all(again)

    def _give_up_sent(self) -> None:
        """It lives, but had to let go of us: we did not read, say, for very long.

        What it meant to tell us is gone, and it may have worked on any of this.
        """
        self._calls.end_all(Restarted())
        unsent = {job[0] for job in self._outbox}
        for job_id in [job_id for job_id in self._pending if job_id not in unsent]:
            self._end(job_id, SupervisorUnavailable("The answer was lost; ask again."))

    def _send_all(self, jobs: list[frames.SubmittedJob]) -> None:
        """In messages that are not too large; what nobody takes waits on."""
        share: list[frames.SubmittedJob] = []
        size = 0
        for at, job in enumerate(jobs):
            share.append(job)
            size += len(job.payload)
            if size >= frames.MAX_SUBMIT_BYTES or at + 1 == len(jobs):
                if not self._send(frames.Submit(share)):
                    self._outbox += jobs[at + 1 - len(share) :]
                    return
                share, size = [], 0

    def _fail_everything(self, error: StokerError) -> None:
        pending, self._pending = self._pending, {}
        self._retried.clear()
        for waiting in pending.values():
            waiting.put(error, is_last=True)
        self._calls.end_all(error)
        self._outbox.clear()


def _counted(answer: Answer, attempts: int) -> Answer:
    """An answer that says how often its request was tried."""
    if answer.error is not None:
        answer.error.details["attempts"] = attempts
        return answer
    return answer._replace(headers=[*answer.headers, (ATTEMPTS_HEADER, str(attempts))])
