"""Management calls that a supervisor has not answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from stoker.errors import StokerError, SupervisorUnavailable, from_wire
from stoker.wire.contact import restarting
from stoker.wire.frames import Call, Result

#: Asking again does no harm.
REPEATABLE: Final = frozenset(
    {
        *("describe", "health", "list", "scale", "set_default", "startup_models", "statistics"),
        *("describe_workflow", "list_workflows"),
    }
)


class Restarted(Exception):
    """Whoever was asked is gone, and may have done it or not."""


class Calls:
    """Those of one frontend, each known by a number.

    Args:
        send: False when nobody takes it.
    """

    def __init__(self, send: Callable[[Call], bool]) -> None:
        self._send = send
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._counter = 0

    def __len__(self) -> int:
        return len(self._waiting)

    async def ask(self, verb: str, arguments: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """What the supervisor that is there answers.

        Raises:
            Restarted: That one did not; there is another one.
            StokerError: What it answered, or SupervisorUnavailable.
        """
        self._counter += 1
        call_id = self._counter
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = future
        try:
            if not self._send(Call(call_id, verb, arguments)):
                raise restarting()
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise SupervisorUnavailable(
                "The supervisor did not answer in time.", waited_s=timeout_s
            ) from None
        finally:
            self._waiting.pop(call_id, None)

    def take(self, result: Result) -> None:
        """One has been answered."""
        future = self._waiting.pop(result.call_id, None)
        if future is None or future.done():
            return
        if result.code is None:
            future.set_result(result.value)
        else:
            future.set_exception(from_wire(result.code, result.message, result.value))

    def end_all(self, error: StokerError | Restarted) -> None:
        """Nobody will answer them."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)
