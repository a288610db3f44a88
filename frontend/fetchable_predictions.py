"""Predictions that a client may fetch later; see `asynchronous.py`."""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from stoker.errors import StokerError
from stoker.frontend.answers import exchange_of
from stoker.frontend.asynchronous import STARTING_TOKEN, AsynchronousAnswers, asked
from stoker.frontend.exchange import Exchange
from stoker.frontend.predictions import Predictions
from stoker.frontend.submission import is_large_form
from stoker.wire.payloads import Answer


class FetchablePredictions(Predictions):
    """Falcon's responder for a kind of prediction route where clients need not wait."""

    def __init__(self, later: AsynchronousAnswers, *about: Any) -> None:
        super().__init__(*about)
        self._later = later

    async def answer(
        self,
        request: Request,
        response: Response,
        model_name: str | None = None,
        model_version: str | None = None,
        rest: str = "",
        workflow_name: str | None = None,
    ) -> None:
        exchange = exchange_of(request)
        said = asked(exchange.headers)
        if not said:
            await super().answer(request, response, model_name, model_version, rest, workflow_name)
            return
        try:
            if STARTING_TOKEN in said:
                answer = self._later.fetch(said)
            else:
                answer = await self._send(
                    exchange, request.query_string, model_name, model_version, rest
                )
            response.status = self._submission.shape(exchange, answer)
            response.data = answer.body
        except StokerError as error:
            self._answer_problem(request, response, error, model_name, model_version)

    async def _send(
        self, exchange: Exchange, query: str, model: str | None, version: str | None, rest: str
    ) -> Answer:
        """Send the job and answer at once.  Raises StokerError: It was not sent."""
        inputs = self._inputs(query)
        parameters = None
        if model is None:
            model, version, parameters = await self._subject(exchange, inputs)
        if parameters is None and is_large_form(exchange):
            parameters = await self._forms.read(exchange)
        if isinstance(parameters, StokerError):
            raise parameters
        if parameters is None:
            # The exchange ends, and a body in the arena with it, before the job does.
            parameters = self._submission.read_whole(exchange)
        kept = self._later.begin()
        try:
            pending = self._submission.submit(exchange, model, version, rest, inputs, parameters)
        except BaseException:
            self._later.drop(kept)
            raise
        return self._later.keep(pending, kept)
