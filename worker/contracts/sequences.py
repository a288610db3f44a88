"""The torchserve contract of a version with sequences.

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
from stoker.worker.answers import AnswerRow
from stoker.worker.context import Context
from stoker.worker.contracts.torchserve import Entry, TorchServeContract
from stoker.worker.request import Request
from stoker.worker.sequences import LivingSequences


class SequenceContract(TorchServeContract):
    """As `TorchServeContract`, for a worker in which sequences live.

    Args:
        say_ended: Tells the supervisor which sequences the handler has ended.
    """

    def __init__(
        self,
        entry: Entry,
        context: Context,
        *args: Any,
        sequences: LivingSequences,
        say_ended: Callable[[SequencesEnded], None],
        **options: Any,
    ) -> None:
        super().__init__(self._enter, context, *args, **options)
        self._handler = entry
        self._living = sequences
        self._say_ended = say_ended
        self._labels: list[SequenceLabel] = []

    def _answer(self, jobs: Sequence[WorkJob], requests: list[Request]) -> list[AnswerRow]:
        living, context = self._living, self._context
        labels = self._labels = [
            living.label(job.job_id, request) for job, request in zip(jobs, requests, strict=True)
        ]
        context.begin_batch(requests)
        living.begin(labels, monotonic())
        rows = super()._answer(jobs, requests)
        ended: list[str] = []
        for processor in context.touched_processors or ():
            if processor is not None:
                for name, value in processor.get_response_headers().items():
                    if name.lower() == living.headers.end.lower():
                        ended += [part.strip() for part in str(value).split(";") if part.strip()]
        if told := living.finish(labels, ended, monotonic()):
            self._say_ended(SequencesEnded(told))
        return rows

    def _enter(self, data: Any, context: Context) -> Any:
        """Just before the handler, who may say something else."""
        for i, label in enumerate(self._labels):
            if label.is_made and label.name is not None:
                context.set_response_header(i, self._living.headers.name, label.name)
        return self._handler(data, context)
