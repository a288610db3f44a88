"""Route tables: what a dialect serves, as data.

The same rows build the Falcon application and the OpenAPI document, so the
document cannot promise what is not served.  A row's path is an OpenAPI
template; `{rest:path}` takes everything that follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from falcon.constants import COMBINED_METHODS

from stoker.wire.payloads import Answer

#: Every method the HTTP parser lets through to a responder.
ALL_METHODS: Final = tuple(method for method in COMBINED_METHODS if method != "WEBSOCKET")
#: "Any method": all but OPTIONS, which asks for a description.
ANY: Final = tuple(method for method in ALL_METHODS if method != "OPTIONS")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query (or JSON) parameter of an operation.

    Attributes:
        default: Stands in when the parameter is absent or cannot be read.
        minimum: An integer below counts as one that cannot be read.
        choices: For the document alone: who reads it says what else is allowed.
    """

    name: str
    kind: Literal["string", "integer", "boolean"]
    doc: str
    default: str | int | bool | None = None
    minimum: int | None = None
    is_required: bool = False
    choices: tuple[str, ...] = ()


#: Where `read` finds, by name, what no parameter of the operation is called.
OTHERS: Final = "*"
#: What `parameters.read_parameters` makes of a request: every declared name.
Values = Mapping[str, Any]


class Reply(NamedTuple):
    """An answer in the dialect's shape, before it becomes JSON; bytes stay what they are."""

    status: int
    document: Any
    content_type: str = "application/json"
    reason: str = ""  # a phrase for a status that HTTP has none for, or another one


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer that is no error, for the OpenAPI document.

    Attributes:
        schema: Of a JSON document; None for anything else.
    """

    status: int
    doc: str
    schema: Mapping[str, Any] | None = None
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Operation:
    """A management verb behind a route.

    Attributes:
        outcomes: What `write` may make.
        read: (parameters, path fields) -> the verb's neutral arguments.
        write: (outcome, arguments) -> the answer.
        takes_json: A body of exactly `application/json` replaces the query.
        takes_others: `read` gets what the client says beyond `parameters`, as OTHERS.
        may_name_no_model: A path without a model means the only one of the start.
        question: Added to the client's headers when the argument
            `asks_handler` is true, and the handler is asked about itself.
    """

    verb: str
    read: Callable[[Values, Mapping[str, str]], dict[str, Any]]
    write: Callable[[dict[str, Any], dict[str, Any]], Reply]
    timeout_s: float
    outcomes: tuple[Outcome, ...]
    parameters: tuple[Parameter, ...] = ()
    takes_json: bool = False
    takes_others: bool = False
    question: tuple[tuple[str, str], ...] = ()
    may_name_no_model: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """A job for a model.

    Attributes:
        headers: Added to the client's, and stronger than them.
        has_url_path: Hand the rest of the path over as header `url_path`.
        takes_query: Query parameters are inputs, before those of the body.
        model_input: Where the path names no model: the input that does, if it
            is not the only one that was loaded at start.
        is_alone: Never batched with others: handlers read from the first
            request of a batch what the whole batch is about.
        has_versions: What follows the model in the path names its version;
            else it means nothing.
        looks_into_body: `model_input` may stand in the body, not only in the query.
        takes_turns: Where no version is named, each version in its turn and not the
            default one.
        names_in_headers: The model, and its version, may stand in headers as well.
        is_fetchable: A header may ask for an answer at once, and for the result later.
        of_workflow: The path names a workflow, not a model.
        or_workflow: It names a workflow where there is no such model.
        reshape: Makes of a workflow's answer, or its pieces, what the dialect answers; may
            raise StokerError.
    """

    headers: tuple[tuple[str, str], ...] = ()
    has_url_path: bool = False
    takes_query: bool = False
    model_input: str = ""
    is_alone: bool = False
    has_versions: bool = True
    looks_into_body: bool = True
    takes_turns: bool = False
    names_in_headers: bool = False
    is_fetchable: bool = False
    of_workflow: bool = False
    or_workflow: bool = False
    reshape: Callable[[Answer], Answer] | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """The OpenAPI document of the listener, or of one model."""

    of_model: bool = False
    title: str = ""


@dataclass(frozen=True, slots=True)
class Fixed:
    """An answer that is always the same."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Statistics:
    """The numbers, as text for Prometheus."""


@dataclass(frozen=True, slots=True)
class KeyRenewal:
    """The token API: whoever shows the API key has another key replaced."""


@dataclass(frozen=True, slots=True)
class Route:
    """One row.  Rows without an `operation_id` are served but not described.

    Attributes:
        is_probe: Asked by machines whether we are well; see `health_needs_token`.
    """

    methods: tuple[str, ...]
    path: str
    serves: Operation | Prediction | Description | Fixed | Statistics | KeyRenewal
    operation_id: str = ""
    summary: str = ""
    is_deprecated: bool = False
    is_probe: bool = False
