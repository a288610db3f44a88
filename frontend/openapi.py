"""The OpenAPI 3.0.1 document, made from the rows that are really served.

Titles, paths and operationIds are the peer's (contracts/torchserve.md 2.9);
everything else follows the route table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from falcon.asgi import Request, Response

import stoker
from stoker.errors import StokerError
from stoker.frontend.answers import answer_problem, answer_reply
from stoker.frontend.dialect import Dialect
from stoker.frontend.routes import (
    Description,
    Operation,
    Parameter,
    Prediction,
    Reply,
    Route,
    Statistics,
)
from stoker.wire.link import Link

_OPENAPI: Final = "3.0.1"
_FIELD: Final = re.compile(r"{(\w+)}")
#: Which method stands for "any" in a document that must name one.
_TYPICAL: Final = {Prediction: "post"}
#: The verbs whose model is looked up before a document about it is made.
_LOOK_UP_S: Final = 30.0


class ApiDescription:
    """Falcon's responder for one kind of description."""

    def __init__(
        self, link: Link, dialect: Dialect, routes: Iterable[Route], kind: Description
    ) -> None:
        self._link = link
        self._dialect = dialect
        self._kind = kind
        self._routes = [route for route in routes if route.operation_id]
        self._document = describe_api(dialect.title, stoker.__version__, self._routes)

    async def answer(
        self, request: Request, response: Response, model_name: str | None = None
    ) -> None:
        if model_name is None:
            answer_reply(response, Reply(200, self._document))
            return
        arguments = {"model": model_name, "version": None, "all": False}
        try:
            await self._link.call("describe", arguments, _LOOK_UP_S)
        except StokerError as error:
            answer_problem(request, response, self._dialect, error, "describe", arguments)
            return
        title = self._kind.title.replace("{model_name}", model_name)
        answer_reply(response, Reply(200, describe_model(title, model_name, self._routes)))


def describe_api(title: str, version: str, routes: Iterable[Route]) -> dict[str, Any]:
    """All rows of one listener."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        methods = (
            route.methods if len(route.methods) == 1 else (_TYPICAL.get(type(route.serves), "get"),)
        )
        for method in methods:
            paths.setdefault(route.path, {})[method.lower()] = _describe_route(route)
    return {"openapi": _OPENAPI, "info": {"title": title, "version": version}, "paths": paths}


def describe_model(title: str, model: str, routes: Iterable[Route]) -> dict[str, Any]:
    """The rows about one model, with its name filled in."""
    document = describe_api(title, "1.0.0", [row for row in routes if "{model_name}" in row.path])
    filled: dict[str, Any] = {}
    for path, methods in document["paths"].items():
        for described in methods.values():
            described["parameters"] = [
                field for field in described.get("parameters", ()) if field["name"] != "model_name"
            ]
        filled[path.replace("{model_name}", model)] = methods
    return {**document, "paths": filled}


def _describe_route(route: Route) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"in": "path", "name": name, "required": True, "schema": {"type": "string"}}
        for name in _FIELD.findall(route.path)
    ]
    described: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.operation_id,
        "parameters": parameters,
    }
    if isinstance(route.serves, Prediction):
        described["requestBody"] = {
            "description": "Raw, JSON, text, or a form whose parts become inputs.",
            "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
        }
        described["responses"] = _responses("*/*")
    elif isinstance(route.serves, Statistics):
        described["responses"] = _responses("text/plain")
    else:
        if isinstance(route.serves, Operation):
            parameters += [_describe_parameter(item) for item in route.serves.parameters]
            if route.serves.takes_json:
                described["requestBody"] = _json_body(route.serves.parameters)
        described["responses"] = _responses("application/json")
    if route.is_deprecated:
        described["deprecated"] = True
    return described


def _schema(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter.kind}
    if parameter.default is not None:
        schema["default"] = parameter.default
    if parameter.minimum is not None:
        schema["minimum"] = parameter.minimum
    return schema


def _describe_parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "in": "query",
        "name": parameter.name,
        "description": parameter.doc,
        "required": parameter.is_required,
        "schema": _schema(parameter),
    }


def _json_body(parameters: Iterable[Parameter]) -> dict[str, Any]:
    properties = {item.name: {**_schema(item), "description": item.doc} for item in parameters}
    schema = {"type": "object", "properties": properties}
    return {
        "description": "The same parameters; the query is then ignored.",
        "content": {"application/json": {"schema": schema}},
    }


def _responses(content_type: str) -> dict[str, Any]:
    error = {
        "type": "object",
        "required": ["code", "type"],
        "properties": {
            "code": {"type": "integer"},
            "type": {"type": "string"},
            "message": {"type": "string"},
        },
    }
    return {
        "200": {"description": "Success", "content": {content_type: {}}},
        "default": {
            "description": "Failure",
            "content": {"application/json": {"schema": error}},
        },
    }
