"""On a listener of two roles: the second look, where the route is known.

The first look (`Guard.refusal`) has let in whoever holds either key; managing
models with the key for predictions ends here.

Source: contracts/torchserve.md 1.2 (BUG on the ALL connector).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from falcon.asgi import Request, Response

from stoker.frontend.answers import exchange_of
from stoker.frontend.exchange import Exchange
from stoker.frontend.guard import Guard
from stoker.frontend.listeners import Role
from stoker.frontend.submission import Submission
from stoker.wire.payloads import Parameter
from stoker.wire.pending import Pending

Responder = Callable[..., Awaitable[None]]


def guarded(responder: Responder, guard: Guard, roles: Sequence[Role]) -> Responder:
    """The responder, for holders of a key of these roles only."""

    async def answer(request: Request, response: Response, **path: str) -> None:
        guard.demand(exchange_of(request), roles)
        await responder(request, response, **path)

    return answer


class GuardedSubmission(Submission):
    """A submission that asks for the key of predictions first."""

    def __init__(self, guard: Guard, *about: Any) -> None:
        super().__init__(*about)
        self._guard = guard

    def submit(
        self,
        exchange: Exchange,
        model: str | None,
        version: str | None,
        rest: str,
        inputs: Sequence[Parameter] = (),
        parameters: list[Parameter] | None = None,
    ) -> Pending:
        """Raises TokenRefused, or as `Submission.submit`."""
        self._guard.demand(exchange, (Role.INFERENCE,))
        return super().submit(exchange, model, version, rest, inputs, parameters)
