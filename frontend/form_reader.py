"""Large forms are taken apart by a thread of their own, one after the other.

The loop would stand still meanwhile, for tens of milliseconds with what a
stranger may send; beside a thread it gets its turns.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from stoker.errors import StokerError
from stoker.frontend.bodies import read_parameters
from stoker.frontend.exchange import Exchange
from stoker.frontend.limits import Limits
from stoker.wire.payloads import Parameter

Outcome = list[Parameter] | StokerError


class FormReader:
    """One per process; the thread begins with the first large form."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, "forms")
        self._turn = asyncio.Lock()

    async def read(self, exchange: Exchange) -> Outcome:
        """What the handler will find, or why the form cannot be read.

        Raises:
            asyncio.CancelledError: The client has left.
        """
        task = asyncio.current_task()
        assert task is not None

        def leave() -> None:
            task.cancel()

        exchange.on_left = leave
        try:
            await self._turn.acquire()
            reading = self._start(exchange)
            # It reads on when the client has left: only then is it the next one's turn.
            reading.add_done_callback(self._end)
            return await asyncio.shield(reading)
        finally:
            exchange.on_left = None

    def _start(self, exchange: Exchange) -> asyncio.Future[Outcome]:
        kind = exchange.content_type
        assert kind is not None
        about = (kind.decode("latin-1"), exchange.take_body(), self._limits)
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._thread, _read, *about)

    def _end(self, reading: asyncio.Future[Outcome]) -> None:
        self._turn.release()


def _read(content_type: str, body: bytes, limits: Limits) -> Outcome:
    try:
        return read_parameters(content_type, body, limits)
    except StokerError as error:
        # A value: raised across the future it would hold frames, and the frames
        # megabytes, until the collector comes.
        return type(error)(error.message, **error.details)
