"""One row of a route table as an OpenAPI operation: what it takes, and how it may end.

Every status an operation can answer is named, with the shape it comes in; what
only a handler knows stands under `default`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from stoker.frontend.answers import WARNING_HEADER
from stoker.frontend.dialect import Dialect
from stoker.frontend.metrics import TEXT_TYPE
from stoker.frontend.problems import JSON_TYPE
from stoker.frontend.routes import (
    Description,
    Fixed,
    Operation,
    Outcome,
    Parameter,
    Prediction,
    Route,
)
from stoker.frontend.verb_errors import ANYWHERE, ASTRAY, GUARDED, VERB_ERRORS

_FIELD: Final = re.compile(r"{(\w+)}")
_ANY_TYPE: Final = "*/*"
_TEXT: Final = {"type": "string"}
#: The one error without a document (1.6).
_TOO_LARGE: Final = "request_too_large"
_REQUEST_ID: Final = {
    "x-request-id": {"description": "Also in the logs.", "required": True, "schema": _TEXT}
}
_WARNING: Final = {
    WARNING_HEADER: {"description": "Parameters that were not understood.", "schema": _TEXT}
}
_HANDLERS: Final = {
    "description": "Whatever the handler answers.",
    "content": {_ANY_TYPE: {"schema": {"type": "string", "format": "binary"}}},
}


def describe_route(route: Route, dialect: Dialect, *, is_guarded: bool) -> dict[str, Any]:
    """The OpenAPI operation of a row."""
    serves = route.serves
    described: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.operation_id,
        "parameters": [_path_parameter(name) for name in _FIELD.findall(route.path)],
    }
    if isinstance(serves, Operation):
        described["parameters"] += [_query_parameter(item) for item in serves.parameters]
        if serves.takes_json:
            described["requestBody"] = _json_body(serves.parameters)
    elif isinstance(serves, Prediction):
        if serves.model_input:
            told = "The model; needed unless exactly one was loaded at start."
            described["parameters"].append(
                _query_parameter(Parameter(serves.model_input, "string", told))
            )
        described["requestBody"] = {
            "description": "Raw, JSON, text, or a form whose parts become inputs.",
            "content": {_ANY_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        }
    described["responses"] = _responses(route, dialect, is_guarded=is_guarded)
    if is_guarded:
        described["security"] = [] if _is_open(route) else [{"token": []}]
    if route.is_deprecated:
        described["deprecated"] = True
    return described


def _is_open(route: Route) -> bool:
    return isinstance(route.serves, Description) and not route.serves.of_model


# -- what it takes ---------------------------------------------------------------------


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1}
    return {"in": "path", "name": name, "required": True, "schema": schema}


def _schema(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter.kind}
    if parameter.kind == "integer":
        schema["format"] = "int32"
    if parameter.choices:
        schema["enum"] = [*parameter.choices]
    if parameter.default is not None:
        schema["default"] = parameter.default
    if parameter.minimum is not None:
        schema["minimum"] = parameter.minimum
    return schema


def _query_parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "in": "query",
        "name": parameter.name,
        "description": parameter.doc,
        "required": parameter.is_required,
        "schema": _schema(parameter),
    }


def _json_body(parameters: Iterable[Parameter]) -> dict[str, Any]:
    properties = {item.name: {**_schema(item), "description": item.doc} for item in parameters}
    return {
        "description": "The same parameters; the query is then ignored.",
        "content": {JSON_TYPE: {"schema": {"type": "object", "properties": properties}}},
    }


# -- how it may end --------------------------------------------------------------------


def _responses(route: Route, dialect: Dialect, *, is_guarded: bool) -> dict[str, Any]:
    serves = route.serves
    verb, has_warnings = "", False
    if isinstance(serves, Operation):
        verb, outcomes, has_warnings = serves.verb, serves.outcomes, bool(serves.parameters)
    elif isinstance(serves, Prediction):
        verb = "predict_workflow" if serves.of_workflow else "predict"
        outcomes = (Outcome(200, "What the handler made.", None, _ANY_TYPE),)
    elif isinstance(serves, Fixed):
        reply = serves.reply
        is_text = isinstance(reply.document, bytes)
        shown = None if is_text else {"type": "object", "example": reply.document}
        outcomes = (Outcome(reply.status, "Always the same.", shown, reply.content_type),)
    elif isinstance(serves, Description):
        verb = "describe_api" if serves.of_model else ""
        outcomes = (Outcome(200, "An OpenAPI document.", {"type": "object"}),)
    else:
        outcomes = (Outcome(200, "Numbers as text.", None, TEXT_TYPE),)
    codes = (
        *ANYWHERE,
        *(ASTRAY if "{" in route.path else ()),
        *(GUARDED if is_guarded else ()),
        *VERB_ERRORS[verb],
    )
    endings = [*outcomes, *_errors(codes, verb, dialect)]
    by_status: dict[int, list[Outcome]] = {}
    for outcome in endings:
        by_status.setdefault(outcome.status, []).append(outcome)
    responses = {
        str(status): _response(by_status[status], has_warnings=has_warnings)
        for status in sorted(by_status)
    }
    if verb == "predict":
        # Of a workflow, what handlers set does not reach the client.
        responses["default"] = _HANDLERS
    elif isinstance(serves, Operation) and serves.question:
        responses["default"] = {**_HANDLERS, "description": "What the handler asks for."}
    return responses


def _errors(codes: Iterable[str], verb: str, dialect: Dialect) -> list[Outcome]:
    """The statuses of these codes, each with the types of error that have it."""
    kinds: dict[int, set[str]] = {}
    found = []
    for code in codes:
        row = dialect.problems.get(f"{verb}/{code}") or dialect.problems[code]
        if code == _TOO_LARGE:
            found.append(Outcome(row.status, "The body is too large."))
        else:
            kinds.setdefault(row.status, set()).add(row.kind)
    for status, names in kinds.items():
        schema = dialect.error_schema(status, names)
        found.append(Outcome(status, ", ".join(sorted(names)), schema))
    return found


def _response(outcomes: list[Outcome], *, has_warnings: bool) -> dict[str, Any]:
    """One status; several outcomes of it may look differently."""
    described: dict[str, Any] = {"description": "; ".join(outcome.doc for outcome in outcomes)}
    content: dict[str, list[Mapping[str, Any] | None]] = {}
    for outcome in outcomes:
        if outcome.schema is not None or outcome.content_type != JSON_TYPE:
            content.setdefault(outcome.content_type, []).append(outcome.schema)
    if content:
        described["content"] = {kind: _media(schemas) for kind, schemas in content.items()}
        described["headers"] = _REQUEST_ID | (_WARNING if has_warnings else {})
    return described


def _media(schemas: list[Mapping[str, Any] | None]) -> dict[str, Any]:
    known = [schema for schema in schemas if schema is not None]
    if not known:
        return {}
    return {"schema": known[0] if len(known) == 1 else {"anyOf": known}}
