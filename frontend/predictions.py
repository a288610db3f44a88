"""Predictions through Falcon: for what the short way leaves alone.

That is a path with percent-escapes, an absolute request target, the routes
whose query strings mean something, and large forms; everything else goes through
`express.py`.  A client that leaves cancels its job through the connection.

Source: contracts/torchserve.md 2.1, 2.3, 2.5-2.7.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from falcon.asgi import Request, Response

from stoker.errors import StokerError
from stoker.frontend.answers import answer_problem, exchange_of
from stoker.frontend.bodies import may_be_form
from stoker.frontend.dialect import Dialect
from stoker.frontend.exchange import Exchange
from stoker.frontend.form_reader import FormReader, Outcome
from stoker.frontend.header_fields import fields_in_headers
from stoker.frontend.parameters import split_query
from stoker.frontend.routes import Prediction
from stoker.frontend.startup_models import StartupModels
from stoker.frontend.submission import NO_VERSION, Submission, is_large_form
from stoker.wire.payloads import Answer, AnswerKind, Parameter
from stoker.wire.pending import Pending

_VERSION: Final = "model_version"


class Predictions:
    """Falcon's responder for one kind of prediction route."""

    def __init__(
        self,
        submission: Submission,
        dialect: Dialect,
        kind: Prediction,
        startup_models: StartupModels,
        forms: FormReader,
    ) -> None:
        self._submission = submission
        self._dialect = dialect
        self._kind = kind
        self._startup_models = startup_models
        self._forms = forms

    async def answer(
        self,
        request: Request,
        response: Response,
        model_name: str | None = None,
        model_version: str | None = None,
        rest: str = "",
        workflow_name: str | None = None,
    ) -> None:
        """Send the job, wait for its answer, shape the response."""
        exchange = exchange_of(request)
        if workflow_name is not None:
            model_name, model_version, rest = workflow_name, NO_VERSION, ""
        pending: Pending | None = None
        try:
            inputs = self._inputs(request.query_string)
            parameters: Outcome | None = None
            if model_name is None:
                model_name, model_version, parameters = await self._subject(exchange, inputs)
            if parameters is None and is_large_form(exchange):
                parameters = await self._forms.read(exchange)
            if isinstance(parameters, StokerError):
                self._answer_problem(request, response, parameters, model_name, model_version)
                return
            pending = self._submission.submit(
                exchange, model_name, model_version, rest, inputs, parameters
            )
            exchange.on_left = pending.cancel
            if exchange.has_left:  # while we waited for something else
                pending.cancel()
            answer = await pending.next()
            if self._kind.reshape is not None:
                answer = self._kind.reshape(answer)
            response.status = self._submission.shape(exchange, answer)
            if answer.kind is AnswerKind.CHUNK:
                response.stream = pieces(pending, answer)
            else:
                response.data = answer.body
        except StokerError as error:
            if pending is not None:
                pending.cancel()
            self._answer_problem(request, response, error, model_name, model_version)

    def _answer_problem(
        self,
        request: Request,
        response: Response,
        error: StokerError,
        model: str | None,
        version: str | None,
    ) -> None:
        subject = {"model": model, "version": version}
        answer_problem(request, response, self._dialect, error, "predict", subject)

    def _inputs(self, query: str) -> list[Parameter]:
        """What the query gives to the handler.  Raises InvalidParameter for far too much."""
        if not self._kind.takes_query or not query:
            return []
        return [Parameter(name, "", value.encode()) for name, value in split_query(query)]

    async def _subject(
        self, exchange: Exchange, inputs: list[Parameter]
    ) -> tuple[str | None, str | None, Outcome | None]:
        """Model and version where the path names none, and the form if it had to be read.

        The query is asked first, then headers, if they may name models, and then
        the form; the only model of the start is the last resort.  A model of None
        is for the form to name.
        """
        wanted = self._kind.model_input
        named = next((body for name, _, body in inputs if name == wanted), b"")
        assert isinstance(named, bytes)
        if not self._kind.names_in_headers:
            return named.decode() or await self._startup_models.only(), None, None
        said = fields_in_headers(exchange.headers, (wanted, _VERSION))
        model = named.decode() or said.get(wanted)
        version = next((body for name, _, body in inputs if name == _VERSION), b"")
        assert isinstance(version, bytes)
        form: Outcome | None = None
        if not model and may_be_form(exchange.content_type):
            form = await self._forms.read(exchange)
        if not model and not (isinstance(form, list) and any(name == wanted for name, *_ in form)):
            model = await self._startup_models.only()
        return model or None, version.decode() or said.get(_VERSION), form


async def pieces(pending: Pending, first: Answer) -> AsyncIterator[bytes]:
    """The bodies of a streamed answer; an error ends the connection, not the stream."""
    try:
        answer = first
        while answer.kind is AnswerKind.CHUNK:
            yield answer.body
            answer = await pending.next()
        yield answer.body
    finally:
        pending.cancel()
