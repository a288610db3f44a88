"""The adapters API (LoRA): questions to a worker of the model, which tells the others.

Source: contracts/djl-serving.md 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from stoker.errors import InvalidParameter
from stoker.frontend.dialects.djl.shapes import ADAPTER, ADAPTERS
from stoker.frontend.dialects.shared.replies import PATIENT_S
from stoker.frontend.dialects.shared.shapes import STATUS
from stoker.frontend.routes import (
    OTHERS,
    Operation,
    Outcome,
    Parameter,
    Reply,
    Route,
    Values,
)
from stoker.wire.payloads import ADAPTERS_HEADER

_OF_MODEL: Final = "/models/{model_name}"
_MODEL: Final = f"{_OF_MODEL}/adapters"
_ADAPTER: Final = f"{_MODEL}/{{adapter_name}}"
_NAME: Final = Parameter("name", "string", "Name of the adapter.")
_NEW: Final = (
    _NAME,
    Parameter("src", "string", "Where the adapter is: a path."),
    Parameter("preload", "boolean", "Load it now.", default=True),
    Parameter("pin", "boolean", "Never make room for others with it.", default=False),
)
_PAGE: Final = (
    Parameter("limit", "integer", "Most entries, up to 100.", default=100),
    Parameter("next_page_token", "integer", "Where the previous page ended.", default=0),
)
_DONE: Final = Outcome(200, "What the handler says, or that it is done.", STATUS)


def adapter_routes() -> tuple[Route, ...]:
    """Of a model, and on shorter paths of the only one that was loaded at start."""
    shown = Outcome(200, "The adapter.", ADAPTER)
    page = Outcome(200, "A page of adapters, by name.", ADAPTERS)
    rows = (
        ("GET", _MODEL, "list", _PAGE, page, "listAdapters", "List adapters of a model."),
        ("POST", _MODEL, "register", _NEW, _DONE, "registerAdapter", "Register an adapter."),
        ("GET", _ADAPTER, "describe", (_NAME,), shown, "describeAdapter", "Describe an adapter."),
        (
            "POST",
            f"{_ADAPTER}/update",
            "update",
            (_NAME,),
            _DONE,
            "updateAdapter",
            "Change an adapter's options.",
        ),
        (
            "DELETE",
            _ADAPTER,
            "unregister",
            (_NAME,),
            _DONE,
            "unregisterAdapter",
            "Unregister an adapter.",
        ),
    )
    return tuple(
        Route((method,), shown_path, _operation(verb, parameters, outcome), shown_name, say)
        for method, path, verb, parameters, outcome, name, say in rows
        for shown_path, shown_name in (
            (path, name),
            (path.removeprefix(_OF_MODEL), f"only_{name}"),
        )
    )


def _operation(verb: str, parameters: tuple[Parameter, ...], outcome: Outcome) -> Operation:
    return Operation(
        "describe",
        _reader(parameters),
        _write,
        PATIENT_S,
        (outcome,),
        parameters,
        question=((ADAPTERS_HEADER, verb),),
        takes_others=True,
        may_name_no_model=True,
    )


def _reader(
    parameters: tuple[Parameter, ...],
) -> Callable[[Values, Mapping[str, str]], dict[str, Any]]:
    names = [parameter.name for parameter in parameters]

    def read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
        if not path["model_name"]:
            raise InvalidParameter("Parameter model_name is required.", parameter="model_name")
        inputs = {**values[OTHERS], **{name: values[name] for name in names}}
        inputs["name"] = path.get("adapter_name") or inputs.get("name")
        return {
            "model": path["model_name"],
            "version": None,
            "all": False,
            "is_about_adapters": True,
            "asks_handler": True,
            "check": check,
            "inputs": {
                name: str(value).lower() if isinstance(value, bool) else str(value)
                for name, value in inputs.items()
                if value is not None
            },
        }

    return read


def check(outcome: dict[str, Any]) -> None:
    """Raises InvalidParameter: Its handlers know of no adapters."""
    if not all(record.get("takes_adapters") for record in outcome["versions"]):
        raise InvalidParameter("LoRA is not enabled.", parameter="enable_lora")


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    return Reply(outcome["status"], outcome["metadata"])
