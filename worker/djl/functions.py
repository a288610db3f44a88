"""Functions of DJL workflows: called with evaluated inputs, one for each argument.

A node of a workflow gets its arguments as contents whose names begin with which
argument they are of, `0:`, or which element of it, `0[2]:`
(`archives/djl_workflow.py` writes them); here they become Inputs, or lists of such.

Source: contracts/djl-serving.md 8.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from stoker.worker.contracts.djl import DjlContract
from stoker.worker.djl.inputs import CONTENT_TYPE, DATA, Input
from stoker.worker.djl.outputs import Output
from stoker.worker.request import Request

_LABEL: Final = re.compile(r"(\d+)(?:\[(\d+)\])?:(.*)", re.DOTALL)
_BODY: Final = "body"


class FunctionContract(DjlContract):
    """The djl contract, where each content has a type of its own."""

    def _input(self, request: Request) -> Input:
        found = super()._input(request)
        for name, kind, _ in request.parameters():
            if kind:
                found.properties[f"{name}.{CONTENT_TYPE}"] = kind
        return found


class WorkflowFunction:
    """A function that takes arguments, as the djl contract calls one that takes an Input."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, called: Input) -> Output:
        return as_output(self._function(*arguments_of(called)))


def arguments_of(called: Input) -> list[Any]:
    """An Input for each argument, a list of them for one that is a list."""
    found: dict[int, Any] = {}
    for key, value in called.content:
        match = _LABEL.fullmatch(key or "")
        if match is None:
            raise ValueError(f"content {key!r} is of no argument")
        at = int(match[1])
        if match[2] is None:
            item = found.setdefault(at, Input())
        else:
            items = found.setdefault(at, [])
            while len(items) <= int(match[2]):
                items.append(Input())
            item = items[int(match[2])]
        kind = called.get_property(f"{key}.{CONTENT_TYPE}")
        for name, text in called.properties.items():
            if name.lower() != CONTENT_TYPE and not name.endswith(f".{CONTENT_TYPE}"):
                item.properties.setdefault(name, text)
        if kind is not None:
            item.properties[CONTENT_TYPE] = kind
        item.content.add(DATA if match[3] == _BODY else match[3], value)
    return [found[at] for at in sorted(found)]


def as_output(result: Any) -> Output:
    """What a function may return: an Output, an Input as it came, bytes, text, or JSON."""
    if isinstance(result, Output):
        return result
    output = Output()
    if isinstance(result, Input):
        for key, value in result.content:
            output.add(value, key=key)
        if kind := result.get_property(CONTENT_TYPE):
            output.add_property("Content-Type", kind)
        return output
    if isinstance(result, (bytes, bytearray, str)):
        return output.add(result)
    return output.add_as_json(result).add_property("Content-Type", "application/json")
