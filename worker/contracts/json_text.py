"""JSON with an indent of two, as fast as Python can.

The peer answers `json.dumps(value, indent=2)` and clients compare texts, so
the bytes must be the same; but the standard library indents in pure Python,
one generator step per value, which is dear for a list of a thousand floats.
What is not plain here (subclasses, odd keys, NaN, cycles) goes to the
standard library, which then also finds the words for what is wrong.

Source: contracts/torchserve.md 2.6.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final

_standard: Final = json.JSONEncoder(indent=2).encode
#: Deeper values are left to the standard library and its recursion guard.
MAX_DEPTH: Final = 32
_CONSTANTS: Final = {True: "true", False: "false", None: "null"}


class NotPlain(Exception):
    """Something the fast way does not know."""


def indented(value: Any) -> str:
    """The same text as `json.dumps(value, indent=2)`.

    Raises:
        TypeError, ValueError, RecursionError: As the standard library.
    """
    try:
        return _text(value, "\n", MAX_DEPTH)
    except NotPlain:
        return _standard(value)


def _text(value: Any, line: str, depth: int) -> str:
    kind = type(value)
    if kind is str:
        return quoted(value)
    if kind is float:
        return _float_text(value)
    if kind is int:
        return repr(value)
    if kind is bool or value is None:
        return _CONSTANTS[value]
    if not depth:
        raise NotPlain
    if kind is dict:
        return _dict_text(value, line, depth - 1)
    if kind is list or kind is tuple:
        return _list_text(value, line, depth - 1)
    raise NotPlain


def _float_text(value: float) -> str:
    text = repr(value)
    if "n" in text:  # nan and inf
        raise NotPlain
    return text


def _list_text(value: list[Any] | tuple[Any, ...], line: str, depth: int) -> str:
    if not value:
        return "[]"
    inner = line + "  "
    kinds = set(map(type, value))
    if kinds == {float}:
        body = f",{inner}".join(map(repr, value))
        if "n" in body:  # nan and inf; the line breaks hold no letter
            raise NotPlain
    elif kinds == {int}:
        body = f",{inner}".join(map(repr, value))
    else:
        body = f",{inner}".join([_text(item, inner, depth) for item in value])
    return f"[{inner}{body}{line}]"


def _dict_text(value: dict[Any, Any], line: str, depth: int) -> str:
    if not value:
        return "{}"
    inner = line + "  "
    rows = []
    for key, item in value.items():
        if type(key) is not str:
            raise NotPlain
        rows.append(f"{quoted(key)}: {_text(item, inner, depth)}")
    return f"{{{inner}{f',{inner}'.join(rows)}{line}}}"
