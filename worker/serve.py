"""The worker's loop: take a batch, have it handled, answer every job of it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from stoker.errors import Cancelled, DeadlineExceeded, Internal
from stoker.exit_codes import ExitCode
from stoker.wire.frames import Reply, WorkBatch, WorkJob
from stoker.worker.answers import CUT_BYTES, AnswerRow, cut_rows, error_row, group_rows
from stoker.worker.channel import Channel
from stoker.worker.in_hand import BatchInHand


class Contract(Protocol):
    """What an archive's conventions must offer to be served."""

    #: The handler wants this process to end once the batch is answered.
    wants_exit: bool

    def answer(self, jobs: Sequence[WorkJob]) -> list[AnswerRow]:
        """One last row for each job that did not get one while streaming."""
        ...


def serve(channel: Channel, contract: Contract, in_hand: BatchInHand) -> ExitCode:
    """Serve batches until it is time to leave.

    Whatever a handler or a contract raises ends in an answer: nothing but a
    lost supervisor leaves this loop by an exception.
    """
    while (batch := channel.next_batch()) is not None:
        answer_batch(channel, contract, in_hand, batch)
        if contract.wants_exit:
            channel.flush()
            return ExitCode.FAILURE
    return ExitCode.OK


def answer_batch(
    channel: Channel, contract: Contract, in_hand: BatchInHand, batch: WorkBatch
) -> None:
    """Handle what is still wanted of one batch and reply for all of it."""
    batch_id, jobs, deadlines = batch
    rows: list[AnswerRow] = []
    wanted = jobs
    latest = None
    if channel.dropped or deadlines is not None:
        wanted, rows, latest = sort_out(batch, channel.dropped)
    if wanted:
        in_hand.begin(batch_id, wanted, latest)
        try:
            rows += contract.answer(wanted)
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            bug = Internal("The worker met a bug of its own; its log has the traceback.")
            rows += [error_row(job.job_id, bug) for job in wanted]
        in_hand.end()
    parts = cut_rows(rows) if len(rows) > 1 and _size(rows) > CUT_BYTES else [rows]
    for part in parts[:-1]:
        channel.reply_part(Reply(batch_id, False, [], group_rows(part)))
    channel.reply(Reply(batch_id, True, [job[0] for job in jobs], group_rows(parts[-1])))


def sort_out(
    batch: WorkBatch, dropped: set[bytes]
) -> tuple[list[WorkJob], list[AnswerRow], float | None]:
    """What somebody still wants; the answers of the rest; and by when the last one wants it.

    That is None if one of the jobs has no deadline of its own.
    """
    _, jobs, deadlines = batch
    now = monotonic()
    wanted: list[WorkJob] = []
    rows: list[AnswerRow] = []
    latest: float | None = 0.0
    for job, deadline in zip(jobs, deadlines or [None] * len(jobs), strict=True):
        if job.job_id in dropped:
            gone = Cancelled("The request was taken back before the handler saw it.")
            rows.append(error_row(job.job_id, gone))
        elif deadline is not None and deadline <= now:
            late = DeadlineExceeded("The request waited longer than its deadline allows.")
            rows.append(error_row(job.job_id, late))
        else:
            wanted.append(job)
            latest = None if deadline is None or latest is None else max(latest, deadline)
    return wanted, rows, latest


def _size(rows: list[AnswerRow]) -> int:
    return sum([len(row[6]) for row in rows])
