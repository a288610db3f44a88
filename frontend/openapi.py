"""OpenAPI 3.0.1 documents, made from the rows that are really served.

Titles, paths and operationIds are the peer's (contracts/torchserve.md 2.9);
everything else follows the route table and the table of errors, and a dialect
has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

from falcon.asgi import Request, Response

import stoker
from stoker.errors import StokerError
from stoker.frontend.answers import answer_problem, answer_reply
from stoker.frontend.dialect import Dialect
from stoker.frontend.openapi_operation import describe_route
from stoker.frontend.routes import Description, Prediction, Reply, Route
from stoker.wire.link import Link

_OPENAPI: Final = "3.0.1"
_LOOK_UP_S: Final = 30.0
_MODEL: Final = "{model_name}"


class Documents:
    """What one listener says of itself; made when somebody asks.

    Args:
        is_guarded: Callers must show a key.
    """

    def __init__(self, dialect: Dialect, routes: Sequence[Route], *, is_guarded: bool) -> None:
        self._dialect = dialect
        self._routes = [route for route in routes if route.operation_id]
        self._is_guarded = is_guarded

    @cached_property
    def of_api(self) -> dict[str, Any]:
        """All rows."""
        document = self._document(self._dialect.title, stoker.__version__, self._routes)
        return self._dialect.finish_document(document)

    def of_model(self, title: str, model: str) -> dict[str, Any]:
        """The rows about one model, with its name filled in."""
        about = [route for route in self._routes if _MODEL in route.path]
        document = self._document(title.replace(_MODEL, model), "1.0.0", about)
        filled: dict[str, Any] = {}
        for path, methods in document["paths"].items():
            for described in methods.values():
                described["parameters"] = [
                    field for field in described["parameters"] if field["name"] != "model_name"
                ]
            filled[path.replace(_MODEL, model)] = methods
        return self._dialect.finish_document({**document, "paths": filled}, model)

    def _document(self, title: str, version: str, routes: Sequence[Route]) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        for route in routes:
            for method in _methods(route):
                described = describe_route(route, self._dialect, is_guarded=self._is_guarded)
                paths.setdefault(route.path, {})[method.lower()] = described
        document = {
            "openapi": _OPENAPI,
            "info": {"title": title, "version": version},
            "paths": paths,
        }
        if self._is_guarded:
            scheme = {"type": "http", "scheme": "bearer"}
            document["components"] = {"securitySchemes": {"token": scheme}}
        return document


def _methods(route: Route) -> tuple[str, ...]:
    """Those of the row; where it takes any, the one that a document should name."""
    if len(route.methods) == 1:
        return route.methods
    return ("POST",) if isinstance(route.serves, Prediction) else ("GET",)


class ApiDescription:
    """Falcon's responder for one kind of description."""

    def __init__(
        self, link: Link, dialect: Dialect, documents: Documents, kind: Description
    ) -> None:
        self._link = link
        self._dialect = dialect
        self._documents = documents
        self._kind = kind

    async def answer(
        self,
        request: Request,
        response: Response,
        model_name: str | None = None,
        model_version: str | None = None,
        rest: str = "",
    ) -> None:
        if model_name is None:
            answer_reply(request, response, Reply(200, self._documents.of_api))
            return
        arguments = {"model": model_name, "version": model_version, "all": False}
        try:
            await self._link.call("describe", arguments, _LOOK_UP_S)
        except StokerError as error:
            answer_problem(request, response, self._dialect, error, "describe", arguments)
            return
        document = self._documents.of_model(self._kind.title, model_name)
        answer_reply(request, response, Reply(200, document))
