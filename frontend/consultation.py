"""Asking a handler about itself: what `customized=true` adds to a describe.

The question is a job without inputs that goes through the model's queue, alone
in its batch, with the header that the dialect's handlers look for.  What they
answer must be a JSON object.

Source: contracts/torchserve.md 3.6.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.exchange import Exchange
from stoker.frontend.submission import Submission
from stoker.wire.payloads import Answer, AnswerKind, Parameter

NO_INPUTS: Final[Mapping[str, str]] = {}


class Question(Submission):
    """How a question becomes a job: whatever the client's body is, the handler gets none."""

    def _parameters(self, exchange: Exchange) -> list[Parameter]:
        return []


class Consultation:
    """Questions to the handlers of one listener's models."""

    def __init__(self, question: Question) -> None:
        self._question = question

    async def ask(
        self,
        exchange: Exchange,
        model: str,
        version: str | None,
        inputs: Mapping[str, str] = NO_INPUTS,
        **_: Any,
    ) -> dict[str, Any]:
        """`status` and `metadata` as the handler has them; its headers go into the exchange.

        Raises:
            StokerError: As for a prediction.
        """
        given = [Parameter(name, "", text.encode()) for name, text in inputs.items()]
        pending = self._question.submit(exchange, model, version, "", given)
        exchange.on_left = pending.cancel
        if exchange.has_left:  # while the registry was asked
            pending.cancel()
        try:
            answer = await pending.next()
            while answer.kind is AnswerKind.CHUNK:
                answer = await pending.next()
        finally:
            pending.cancel()
            exchange.on_left = None
        status = self._question.shape(exchange, answer)
        # A plain answer has no phrase; a described model has the usual one.
        exchange.reason = exchange.reason or None
        return {"status": status, "metadata": read_metadata(answer)}


_NOTHING: Final = b"null"


def read_metadata(answer: Answer) -> dict[str, Any] | None:
    """What the handler says of itself; None if nothing, {} if it is no JSON object."""
    if answer.body == _NOTHING:
        return None
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
