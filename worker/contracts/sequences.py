"""The torchserve contracts of a version with sequences, in batches or step by step.

Requests without a name for their sequence get one.  Their answers tell it, in
the header of that name, unless the handler has set that itself: else their
clients could not go on.  A handler ends sequences by the response header
`ts_request_sequence_end`, which names one or several.

Source: contracts/torchserve.md 8.7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from stoker.wire.frames import SequencesEnded, WorkJob
from stoker.wire.sequence_labels import SequenceLabel
from stoker.worker.answers import CHUNK, AnswerRow
from stoker.worker.context import Context
from stoker.worker.contracts.continuous import ContinuousContract
from stoker.worker.contracts.torchserve import Entry, TorchServeContract
from stoker.worker.in_hand import BatchInHand
from stoker.worker.request import Request
from stoker.worker.sequences import LivingSequences


class Keeper:
    """Around every call of the handler: who comes, and who has ended.

    Args:
        say_ended: Tells the supervisor which sequences the handler has ended.
    """

    def __init__(
        self, living: LivingSequences, say_ended: Callable[[SequencesEnded], None]
    ) -> None:
        self._living = living
        self._say_ended = say_ended
        self._labels: list[SequenceLabel] = []
        self._entry: Entry | None = None

    def wrap(self, entry: Entry) -> Entry:
        self._entry = entry
        return self._enter

    def begin(self, context: Context, jobs: Sequence[WorkJob], requests: list[Request]) -> None:
        living = self._living
        self._labels = [
            living.label(job.job_id, request) for job, request in zip(jobs, requests, strict=True)
        ]
        # Whatever the handler never came to say must not be taken from the batch before.
        context.begin_batch(requests)
        living.begin(self._labels, monotonic())

    def _enter(self, data: Any, context: Context) -> Any:
        """Just before the handler, who may say something else."""
        name = self._living.headers.name
        for i, label in enumerate(self._labels):
            if label.is_made and label.name is not None:
                context.set_response_header(i, name, label.name)
        assert self._entry is not None
        return self._entry(data, context)

    def end(self, context: Context, goes_on: Sequence[bool]) -> None:
        """The handler is back.

        Args:
            goes_on: Of each request, whether it is not done yet.
        """
        labels = [
            label._replace(is_end=label.is_end and not is_not_done)
            for label, is_not_done in zip(self._labels, goes_on, strict=True)
        ]
        ended: list[str] = []
        end_header = self._living.headers.end.lower()
        for processor in context.touched_processors or ():
            if processor is not None:
                for name, value in processor.get_response_headers().items():
                    if name.lower() == end_header:
                        ended += filter(None, map(str.strip, str(value).split(";")))
        if told := self._living.finish(labels, ended, monotonic()):
            self._say_ended(SequencesEnded(told))


class SequenceContract(TorchServeContract):
    """As `TorchServeContract`, for a worker in which sequences live."""

    def __init__(
        self,
        entry: Entry,
        context: Context,
        in_hand: BatchInHand,
        *,
        keeper: Keeper,
        **options: Any,
    ) -> None:
        super().__init__(keeper.wrap(entry), context, in_hand, **options)
        self._keeper = keeper

    def _answer(self, jobs: Sequence[WorkJob], requests: list[Request]) -> list[AnswerRow]:
        self._keeper.begin(self._context, jobs, requests)
        rows = super()._answer(jobs, requests)
        self._keeper.end(self._context, [False] * len(jobs))
        return rows


class ContinuousSequenceContract(ContinuousContract):
    """As `ContinuousContract`, for a worker in which sequences live."""

    def __init__(
        self,
        entry: Entry,
        context: Context,
        in_hand: BatchInHand,
        *,
        keeper: Keeper,
        **options: Any,
    ) -> None:
        super().__init__(keeper.wrap(entry), context, in_hand, **options)
        self._keeper = keeper

    def step(self, jobs: Sequence[WorkJob], requests: list[Request]) -> list[AnswerRow]:
        self._keeper.begin(self._context, jobs, requests)
        rows = super().step(jobs, requests)
        going_on = {row[0] for row in rows if row[1] == CHUNK}
        self._keeper.end(self._context, [job.job_id in going_on for job in jobs])
        return rows
