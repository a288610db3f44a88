"""The loop of a worker that takes up requests while earlier ones are in progress.

    socket --readable--> take up: a task for each request, up to `jobs_at_once`
    task   --piece, end--> outbox --once a turn--> supervisor

Once a second a worker with requests in progress says that its event loop
turns: a request may rightly be silent for longer than `response_timeout`, a
loop that stands still for so long is stuck.  The supervisor counts requests,
and tells who has left; such a task is cancelled.

Everything here runs on the loop's thread, but for what a handler sends from a
thread of its own.

Source: contracts/torchserve.md 8.8.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from time import monotonic
from typing import Final

from stoker.errors import Internal, StokerError
from stoker.exit_codes import ExitCode
from stoker.wire.arena_reader import ArenaReader
from stoker.wire.frames import Reply, WorkBatch, WorkJob
from stoker.worker.answers import AnswerRow, error_row, group_rows
from stoker.worker.channel import HOLD_S, Channel
from stoker.worker.context import Context
from stoker.worker.contracts.asynchronous import AsyncContract
from stoker.worker.coroutines import event_loop
from stoker.worker.in_hand import BatchInHand
from stoker.worker.request import Request
from stoker.worker.serve import sort_out
from stoker.worker.successor import SupervisorGone

#: Between two signs of life, and two looks at what is due; or as short as
#: `response_timeout` needs.
BEAT_S: Final = 1.0
BEATS_IN_TIME: Final = 4
#: For cancelled tasks, before the worker goes on without waiting for them.
CANCEL_S: Final = 5.0

MakeContract = Callable[[Context, BatchInHand], AsyncContract]


class OneInHand(BatchInHand):
    """One request among others, as its handler may see and feed it; from any thread."""

    def __init__(
        self, server: AsyncServer, batch_id: int, job: WorkJob, deadline: float | None
    ) -> None:
        super().__init__(server.channel, 0.0)
        self.begin(batch_id, (job,), deadline)
        self._server = server
        self.has_left = False

    def is_cancelled(self, index: int | None = None) -> bool:
        return self.has_left

    def deadline(self) -> float | None:
        """Its client's own; the handler has no other (8.8)."""
        return self._latest

    def _reply(self, rows: list[AnswerRow]) -> None:
        # Its place is taken until the handler is done, whatever the client has been told.
        self._server.post(Reply(self._batch_id, False, [], group_rows(rows)))


class AsyncServer:
    """Everything that is in progress in this worker.

    Args:
        make_contract: For one request, with the context that is its own.
        most: Requests that are in progress at once.
        response_timeout_s: How long the event loop may stand still.
    """

    def __init__(
        self,
        channel: Channel,
        context: Context,
        make_contract: MakeContract,
        most: int,
        response_timeout_s: float,
        arena: ArenaReader | None = None,
    ) -> None:
        self.channel = channel
        self._context = context
        self._make_contract = make_contract
        self._most = most
        self._beat_s = min(BEAT_S, response_timeout_s / BEATS_IN_TIME)
        self._arena = arena
        self._loop = event_loop()
        self._thread = threading.get_ident()
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._hands: dict[bytes, OneInHand] = {}
        self._jobs: dict[bytes, tuple[int, WorkJob]] = {}
        self._names: set[str] = set()
        self._renamed = 0
        self._lock = threading.Lock()
        self._outbox: list[Reply] = []
        self._outbox_since = 0.0
        self._is_flush_due = False
        #: Grows with every supervisor: what was begun for an earlier one is not answered.
        self._life = 0
        self._is_away = False
        self._has_spoken = False
        self._wants_exit = False
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._beat: asyncio.TimerHandle | None = None

    def serve(self) -> ExitCode:
        """Until it is time to leave and everybody has had an answer.  Raises SupervisorGone."""
        try:
            return self._loop.run_until_complete(self._serve())
        finally:
            self._end_rest()

    def _end_rest(self) -> None:
        """What the handler ran beside its requests ends with the process."""
        rest = asyncio.all_tasks(self._loop)
        for task in rest:
            task.cancel()
        if rest:
            self._loop.run_until_complete(asyncio.wait(rest, timeout=CANCEL_S))

    async def _serve(self) -> ExitCode:
        channel = self.channel
        while True:
            self._done = self._loop.create_future()
            self._listen()
            self._hear()
            await self._done
            self._close_ears()
            self._flush()
            if self._wants_exit:
                return ExitCode.FAILURE
            if channel.is_orphan:
                await self._change_supervisor()
            elif not channel.has_work_at_last():
                channel.errands.run_all(monotonic())
                return ExitCode.OK

    # -- requests in ------------------------------------------------------------

    def _listen(self) -> None:
        self._loop.add_reader(self.channel.fileno(), self._hear)
        self._loop.add_reader(self.channel.stop.fileno(), self._hear_stop)
        self._keep_beating()

    def _close_ears(self) -> None:
        self._loop.remove_reader(self.channel.fileno())
        self._loop.remove_reader(self.channel.stop.fileno())

    def _hear(self) -> None:
        try:
            self._take_up()
        except Exception as error:
            self._break_off(error)

    def _hear_stop(self) -> None:
        self.channel.stop.clear()
        self._hear()

    def _break_off(self, error: Exception) -> None:
        """The loop would log it and go on; with the supervisor there is nothing to go on with."""
        if not self._done.done():
            self._done.set_exception(error)

    def _take_up(self) -> None:
        """Begin what has come, end what is not wanted, and see whether it is time to go."""
        channel = self.channel
        for batch in channel.take_arrived(self._most - len(self._tasks)):
            self._begin(batch)
        if dropped := channel.dropped:
            for job_id, hand in self._hands.items():
                # Once: what it does about it may take several turns.
                if job_id in dropped and not hand.has_left:
                    hand.has_left = True
                    self._tasks[job_id].cancel()
        self._look_for_end()

    def _look_for_end(self) -> None:
        is_over = self.channel.is_leaving and not self._tasks and not self.channel.has_waiting
        if (is_over or self._wants_exit or self.channel.is_orphan) and not self._done.done():
            self._done.set_result(None)

    def _begin(self, batch: WorkBatch) -> None:
        wanted, rows, deadline = sort_out(batch, self.channel.dropped)
        for job in wanted:
            try:
                request = Request(job.payload, job.job_id, self._arena)
            except StokerError as error:
                rows.append(error_row(job.job_id, error))
                continue
            self._name(request)
            hand = OneInHand(self, batch.batch_id, job, deadline)
            self._hands[job.job_id] = hand
            self._jobs[job.job_id] = (batch.batch_id, WorkJob(job.job_id, b""))
            answering = self._answer(batch.batch_id, job, request, hand, self._life)
            self._tasks[job.job_id] = self._loop.create_task(answering)
        for row in rows:
            self.post(Reply(batch.batch_id, True, [row[0]], group_rows([row])))
        self._hold()
        self._keep_beating()

    def _name(self, request: Request) -> None:
        """No two in progress under one id: engines know requests by it."""
        known = request.request_id
        while request.request_id in self._names:
            self._renamed += 1
            request.rename(f"{known}.{self._renamed}")
        self._names.add(request.request_id)

    def _hold(self) -> None:
        self.channel.hold([job for _, job in self._jobs.values()])

    async def _answer(
        self, batch_id: int, job: WorkJob, request: Request, hand: OneInHand, life: int
    ) -> None:
        begun_at = monotonic()
        contract = self._make_contract(self._context.for_request(), hand)
        try:
            rows = await contract.answer_later(job, request)
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            bug = Internal("The worker met a bug of its own; its log has the traceback.")
            rows = [error_row(job.job_id, bug)]
        hand.end()
        self._names.discard(request.request_id)
        if life != self._life:
            return
        for register in (self._tasks, self._hands, self._jobs):
            del register[job.job_id]
        self.post(Reply(batch_id, True, [job.job_id], group_rows(rows) if rows else []))
        self._hold()
        self.channel.took_s = monotonic() - begun_at
        self._wants_exit = self._wants_exit or contract.wants_exit
        self._hear()

    # -- answers out ------------------------------------------------------------

    def post(self, reply: Reply) -> None:
        """Let it leave at the end of this turn, or now if it has waited for a turn too long."""
        is_own = threading.get_ident() == self._thread
        with self._lock:
            if not self._outbox:
                self._outbox_since = monotonic()
            self._outbox.append(reply)
            is_late = is_own and monotonic() - self._outbox_since >= HOLD_S
            if self._is_flush_due and not is_late:
                return
            self._is_flush_due = True
        if is_late:
            self._flush()
        elif is_own:
            self._loop.call_soon(self._flush)
        else:
            self._loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        with self._lock:
            replies, self._outbox = self._outbox, []
            self._is_flush_due = False
        if replies and not self._is_away:
            self._has_spoken = True
            try:
                self.channel.reply_now(replies)
            except SupervisorGone as error:
                self._break_off(error)
            self._look_for_end()

    def _keep_beating(self) -> None:
        if self._beat is None:
            self._beat = self._loop.call_later(self._beat_s, self._on_beat)

    def _on_beat(self) -> None:
        self._beat = None
        if self._is_away:
            return
        if self._jobs and not self._has_spoken:
            batch_id, _ = next(iter(self._jobs.values()))
            self.post(Reply(batch_id, False, [], []))
        self._has_spoken = False
        try:
            self.channel.errands.run_due(monotonic())
        except SupervisorGone as error:
            self._break_off(error)
        if self._jobs or self.channel.errands.are_waiting:
            self._keep_beating()
        self._look_for_end()

    # -- another supervisor -------------------------------------------------------

    async def _change_supervisor(self) -> None:
        """Give up what is in progress, and wait for the next one.  Raises SupervisorGone."""
        self._is_away = True
        self._life += 1
        given_up = [WorkBatch(batch_id, [job]) for batch_id, job in self._jobs.values()]
        tasks = list(self._tasks.values())
        for hand in self._hands.values():
            hand.has_left = True
            hand.end()
        for task in tasks:
            task.cancel()
        for register in (self._tasks, self._hands, self._jobs):
            register.clear()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_S)
        self.channel.give_up(given_up)
        # It sleeps between two looks; what the handler runs beside its requests goes on.
        await asyncio.to_thread(self.channel.come_back)
        self._is_away = self._is_flush_due = False
        self._outbox.clear()
