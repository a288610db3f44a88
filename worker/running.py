"""A batch that requests join and leave while it runs, and the loop that steps it.

    join    between two steps, as long as there is room
    step    the handler is called once with all that are there
    leave   when the handler has said its last word; when its client has gone

Every request is a batch of its own to the supervisor, and gets a reply after
every step: that is also how the supervisor sees that the handler is alive.

Handlers keep what they need for a request under its id, and clear up when it
is not among `context.request_ids` any more.  So one that left without a word
of the handler's may not come in under the same id before the handler was
called without it, nor two at once under one id that clients chose: such a one
gets an id of its own, for the handler alone.

Source: contracts/torchserve.md 8.7.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Final, Protocol

from stoker.errors import Internal, StokerError
from stoker.exit_codes import ExitCode
from stoker.wire.arena_reader import ArenaReader
from stoker.wire.frames import Reply, WorkBatch, WorkJob
from stoker.worker.answers import CHUNK, CUT_BYTES, ERROR, AnswerRow, error_row, group_rows
from stoker.worker.channel import Channel
from stoker.worker.contracts.torchserve import STREAM_NEXT
from stoker.worker.in_hand import BatchInHand
from stoker.worker.request import Request
from stoker.worker.serve import sort_out

#: An empty piece with nothing else to say than that there will be others.
NOTHING: Final = [CHUNK, 200, "", None, [STREAM_NEXT, "true"], b""]


class StepContract(Protocol):
    """What an archive's conventions must offer for that."""

    wants_exit: bool

    def step(self, jobs: Sequence[WorkJob], requests: list[Request]) -> list[AnswerRow]: ...


class Run:
    """One request in the running batch."""

    __slots__ = ("batch_id", "deadline", "job", "request")

    def __init__(self, batch_id: int, job_id: bytes, request: Request, deadline: float | None):
        self.batch_id = batch_id
        # Without its payload: the handler gets that once.
        self.job = WorkJob(job_id, b"")
        self.request = request
        self.deadline = deadline


class RunsInHand(BatchInHand):
    """The requests of one step, as their handler may see and feed them."""

    def __init__(self, channel: Channel, response_timeout_s: float) -> None:
        super().__init__(channel, response_timeout_s)
        #: By job id; of all that are in hand, whether a step runs or not.
        self.batch_ids: dict[bytes, int] = {}

    def _reply(self, rows: list[AnswerRow]) -> None:
        """What ends a request ends its batch of one."""
        replies: list[Reply] = []
        size = 0
        for row in rows:
            job_id = row[0]
            is_last = row[1] != CHUNK
            ended = [job_id] if is_last else []
            # Who has heard nothing yet can still be tried again after a death.
            groups = [] if row[1:] == NOTHING else group_rows([row])
            replies.append(Reply(self.batch_ids[job_id], is_last, ended, groups))
            size += len(row[6])
            if size > CUT_BYTES:
                self._channel.reply_now(replies)
                replies, size = [], 0
        self._channel.reply_now(replies)

    def end_with(self, rows: list[AnswerRow]) -> None:
        """The step is over; after this, a stray thread of the handler can send nothing more."""
        with self._lock:
            self._jobs = ()
            self._reply(rows)


class RunningBatch:
    """The requests that a worker works on together.

    Args:
        most: As many as there may be at once.
    """

    def __init__(
        self, channel: Channel, in_hand: RunsInHand, most: int, arena: ArenaReader | None = None
    ) -> None:
        self._channel = channel
        self._in_hand = in_hand
        self._most = most
        self._arena = arena
        self._runs: dict[bytes, Run] = {}
        #: Ids of requests that left, which the handler has not been called without.
        self._unseen: set[str] = set()
        self._renamed = 0

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def room(self) -> int:
        return self._most - len(self._runs)

    def join(self, batch: WorkBatch) -> None:
        """Take up a batch of one; one that nobody wants or can read any more ends here."""
        channel = self._channel
        for job in batch.jobs:
            self._in_hand.batch_ids[job.job_id] = batch.batch_id
        wanted, rows, latest = sort_out(batch, channel.dropped)
        for job_id, payload in wanted:
            try:
                request = Request(payload, job_id, self._arena)
            except StokerError as error:
                rows.append(error_row(job_id, error))
                continue
            self._name(request)
            self._runs[job_id] = Run(batch.batch_id, job_id, request, latest)
        if rows:
            self._in_hand.end_with(rows)
            for row in rows:
                del self._in_hand.batch_ids[row[0]]

    def _name(self, request: Request) -> None:
        taken = {run.request.request_id for run in self._runs.values()} | self._unseen
        known = request.request_id
        while request.request_id in taken:
            self._renamed += 1
            request.rename(f"{known}.{self._renamed}")

    def let_go(self) -> None:
        """Clients have left: the handler is called without them from now on."""
        dropped = self._channel.dropped
        if not dropped:
            return
        gone = [run for job_id, run in self._runs.items() if job_id in dropped]
        replies = [Reply(run.batch_id, True, [run.job.job_id], []) for run in gone]
        for run in gone:
            self._forget(run, is_seen=False)
        self._channel.reply_now(replies)

    def give_up(self) -> None:
        """The supervisor is gone, and with it whoever would have passed on the answers."""
        runs = list(self._runs.values())
        for run in runs:
            self._forget(run, is_seen=False)
        self._channel.give_up(WorkBatch(run.batch_id, [run.job]) for run in runs)

    def step(self, contract: StepContract) -> None:
        """Call the handler, and send what it says."""
        runs = list(self._runs.values())
        jobs = [run.job for run in runs]
        deadlines = [run.deadline for run in runs]
        known = [deadline for deadline in deadlines if deadline is not None]
        latest = max(known) if len(known) == len(runs) else None
        self._channel.hold(jobs)
        self._channel.begin_step()
        self._in_hand.begin(0, jobs, latest)
        self._unseen.clear()
        try:
            rows = contract.step(jobs, [run.request for run in runs])
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            bug = Internal("The worker met a bug of its own; its log has the traceback.")
            rows = [error_row(job.job_id, bug) for job in jobs]
        self._in_hand.end_with(rows)
        self._channel.end_step()
        kinds = {row[0]: row[1] for row in rows}
        for run in runs:
            kind = kinds.get(run.job.job_id)
            if kind == CHUNK:
                if run.request.has_parameters:
                    run.request = run.request.continued()
            else:
                self._forget(run, is_seen=kind is not None and kind != ERROR)
        self._channel.hold([run.job for run in self._runs.values()])

    def _forget(self, run: Run, *, is_seen: bool) -> None:
        """`is_seen`: the handler itself has ended it."""
        del self._runs[run.job.job_id]
        del self._in_hand.batch_ids[run.job.job_id]
        if not is_seen:
            self._unseen.add(run.request.request_id)


def serve_running(channel: Channel, contract: StepContract, running: RunningBatch) -> ExitCode:
    """Step the running batch until it is time to leave and everybody has had an answer."""
    while True:
        if channel.is_orphan:
            running.give_up()
        if not len(running):
            batch = channel.next_batch()
            if batch is None:
                return ExitCode.OK
            running.join(batch)
        for batch in channel.take_arrived(running.room):
            running.join(batch)
        if channel.is_orphan:
            continue
        running.let_go()
        if len(running):
            running.step(contract)
            if contract.wants_exit:
                channel.flush()
                return ExitCode.FAILURE
