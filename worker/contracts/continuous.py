"""Continuous batching: the handler is called step by step with whoever is there.

At a request's first step its row of `data` holds what the client sent; at
every further one it is `{}`, and only headers and id are there: the handler
knows by `context.request_ids` whom it is about, and keeps what it needs, by
id, on the context.  What it returns is one piece for each request.  Whether
more follows is said by `context.stopping_criteria[i](piece)`, or by the
response header `ts_stream_next`; a request of which nothing is said has ended.

Source: contracts/torchserve.md 8.7 and 7.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import GeneratorType

from stoker.errors import BadHandlerResult
from stoker.wire.frames import WorkJob
from stoker.worker.answers import CHUNK, FINAL, AnswerRow
from stoker.worker.contracts import faults, values
from stoker.worker.contracts.torchserve import STREAM_NEXT, TorchServeContract
from stoker.worker.request import Request


class ContinuousContract(TorchServeContract):
    """As `TorchServeContract`, a step at a time."""

    def step(self, jobs: Sequence[WorkJob], requests: list[Request]) -> list[AnswerRow]:
        """Run the handler once.

        Returns:
            A row for each job that has not ended before the handler was done;
            one of kind CHUNK stays for the next step, any other ends its job.
        """
        context = self._context
        self._jobs = jobs
        try:
            data = [values.read(request, self._decode_request) for request in requests]
            if self._broadcast is not None:
                self._broadcast(requests)
            context.begin_batch(requests)
            results = self._entry(data, context)
            if type(results) is not list:
                results = self._listed(results)
            if len(results) != len(jobs):
                raise BadHandlerResult(faults.WRONG_LENGTH)
            if GeneratorType in map(type, results):
                results = self._run_item_generators(results)
            if self._has_streamed or context.stopping_criteria is not None:
                self._mark_end(results)
            rows = [
                self._row(i, result, CHUNK if self._goes_on(i) else FINAL)
                for i, result in enumerate(results)
            ]
        except BaseException as error:
            rows = self._fail_all(error, requests)
        if self._ended:
            rows = [row for i, row in enumerate(rows) if i not in self._ended]
            self._ended.clear()
        self._has_streamed = False
        return rows

    def _goes_on(self, i: int) -> bool:
        processors = self._context.touched_processors
        processor = None if processors is None else processors[i]
        return processor is not None and processor.get_response_header(STREAM_NEXT) == "true"
