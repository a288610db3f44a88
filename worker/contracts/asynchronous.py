"""Asynchronous handlers: every request is a call of its own, many at once.

`handle(data, context)` is a coroutine; `data` has one row, and `context` is a
copy for this request: what a handler sets on it is not seen by others, what it
finds on it (an engine, a cache) is shared with them.  Pieces leave by
`send_intermediate_predict_response`, or are yielded by an asynchronous
generator, one list of one element each.  When the client leaves, the coroutine
is cancelled.

Source: contracts/torchserve.md 8.8 and 7.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from stoker.errors import BadHandlerResult, Cancelled
from stoker.wire.frames import WorkJob
from stoker.worker.answers import FINAL, AnswerRow, error_row
from stoker.worker.contracts import faults, values
from stoker.worker.contracts.torchserve import TorchServeContract
from stoker.worker.request import Request


class AsyncContract(TorchServeContract):
    """As `TorchServeContract`, for one request among others."""

    async def answer_later(self, job: WorkJob, request: Request) -> list[AnswerRow]:
        """Run the handler; the last row, if it did not leave while streaming."""
        context = self._context
        self._jobs = (job,)
        try:
            data = [values.read(request, self._decode_request)]
            context.begin_batch((request,))
            results = self._entry(data, context)
            if isinstance(results, AsyncGenerator):
                results = await self._run_async_generator(results)
            else:
                results = await results
            if type(results) is not list:
                results = self._listed(results)
            if len(results) != 1:
                raise BadHandlerResult(faults.WRONG_LENGTH)
            if self._has_streamed or context.stopping_criteria is not None:
                self._mark_end(results)
            rows = [self._row(0, results[0], FINAL)]
        except asyncio.CancelledError as error:
            rows = self._cancelled(error, (request,))
        except BaseException as error:
            rows = self._fail_all(error, (request,))
        return [] if self._ended else rows

    def _cancelled(self, error: BaseException, requests: Sequence[Request]) -> list[AnswerRow]:
        """By us; or by the handler itself, which is a fault like any other."""
        if not self._in_hand.is_cancelled():
            return self._fail_all(error, requests)
        gone = Cancelled("The client left while its request was handled.")
        return [error_row(job.job_id, gone) for job in self._jobs]

    async def _run_async_generator(self, steps: AsyncGenerator[Any, None]) -> list[Any]:
        """Every step is a list with one piece; there is no last word but the end."""
        try:
            async for pieces in steps:
                self.send_step(pieces)
        finally:
            await steps.aclose()
        return [b""]
