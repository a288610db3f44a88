"""Putting an answer into Falcon's response: JSON, problems, warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import falcon
from falcon.asgi import Request, Response

from stoker.errors import Internal, StokerError
from stoker.frontend.dialect import Dialect
from stoker.frontend.exchange import SCOPE_KEY, Exchange
from stoker.frontend.problems import (
    MalformedHttp,
    MethodNotAllowed,
    RouteNotFound,
    is_overload,
    render_json,
)
from stoker.frontend.routes import Fixed, Reply
from stoker.logs import get_logger
from stoker.wire.payloads import ATTEMPTS_HEADER

WARNING_HEADER: Final = "x-stoker-warning"

log = get_logger("http")


def exchange_of(request: Request) -> Exchange:
    return cast(Exchange, request.scope[SCOPE_KEY])


def answer_reply(
    request: Request, response: Response, reply: Reply, warnings: Sequence[str] = ()
) -> None:
    document = reply.document
    if reply.reason:
        exchange_of(request).reason = reply.reason.encode("latin-1", "replace")
    response.status = reply.status
    response.data = document if isinstance(document, bytes) else render_json(document)
    response.content_type = reply.content_type
    if warnings:
        response.set_header(WARNING_HEADER, "; ".join(warnings))


def answer_problem(
    request: Request,
    response: Response,
    dialect: Dialect,
    error: StokerError,
    verb: str = "",
    arguments: Mapping[str, Any] | None = None,
) -> None:
    """Tell an error as the dialect does, and log what only we can explain."""
    problem = dialect.problem(error, verb, arguments)
    exchange = exchange_of(request)
    exchange.connection.site.counts.error(error.code)
    if (watch := dialect.watch) is not None:
        watch.told(problem, verb)
    exchange.keeps_open = is_overload(error)
    if error.code == Internal.code:
        log.error(
            "an internal error was answered",
            request_id=exchange.request_id,
            verb=verb,
            error=error.message,
        )
    answer_reply(request, response, Reply(problem.status, dialect.error_document(problem)))
    if problem.retry_after_s is not None:
        response.set_header("retry-after", str(problem.retry_after_s))
    if problem.attempts > 1:
        response.set_header(ATTEMPTS_HEADER, str(problem.attempts))


class FixedAnswer:
    """Falcon's responder for what is always the same."""

    def __init__(self, kind: Fixed) -> None:
        self._reply = kind.reply

    async def answer(self, request: Request, response: Response, **path: str) -> None:
        answer_reply(request, response, self._reply)


def install_error_handlers(app: falcon.asgi.App[Request, Response], dialect: Dialect) -> None:
    """Whatever a responder or the router raises becomes an answer of the dialect."""

    async def on_stoker_error(
        request: Request, response: Response, error: StokerError, params: dict[str, Any]
    ) -> None:
        answer_problem(request, response, dialect, error)

    async def on_http_error(
        request: Request, response: Response, error: falcon.HTTPError, params: dict[str, Any]
    ) -> None:
        known: StokerError
        if isinstance(error, falcon.HTTPMethodNotAllowed):
            known = MethodNotAllowed()
        elif isinstance(error, falcon.HTTPNotFound):
            known = RouteNotFound()
        else:
            known = MalformedHttp()
        answer_problem(request, response, dialect, known)

    async def on_exception(
        request: Request, response: Response, error: Exception, params: dict[str, Any]
    ) -> None:
        log.error(
            "a request failed",
            request_id=exchange_of(request).request_id,
            method=request.method,
            path=request.path,
            exc_info=error,
        )
        answer_problem(request, response, dialect, Internal())

    app.add_error_handler(Exception, on_exception)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(StokerError, on_stoker_error)
