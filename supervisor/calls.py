"""Management calls on their way: who asked, and what the answer will hold."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from stoker.errors import StokerError
from stoker.supervisor.desired import DesiredVersion

#: What a verb answers.
Value = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a result goes."""

    identity: bytes
    call_id: int


@dataclass(slots=True)
class WaitingCall:
    """A call whose result comes later; `value` is merged with the engine's outcome.

    Attributes:
        registers: The version that becomes durable when the call succeeds.
        parts: Outcomes that are still to come; the first error is the call's.
    """

    caller: Caller
    value: Value = field(default_factory=dict)
    registers: DesiredVersion | None = None
    parts: int = 1
    error: StokerError | None = None


@dataclass(slots=True)
class AwaitedCall:
    """A call of our own, of which a coroutine awaits the outcome."""

    outcome: asyncio.Future[Value | StokerError]

    def resolve(self, outcome: Value | StokerError) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)
