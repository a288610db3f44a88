"""Reading parameters: from the query, or from a JSON object in the body.

`;` separates like `&`, the first of equal names wins, unknown names are
ignored.  A value that cannot be read becomes the default, and the answer says
so in `x-stoker-warning`; with `strict_parameters` it is a 400.

Source: contracts/torchserve.md 1.2, 3.1; contracts/README.md, last row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from stoker.errors import InvalidBody, InvalidParameter
from stoker.frontend.routes import Parameter

MAX_PARAMETERS: Final = 256
#: The peer's integers have 32 bits; beyond, they do not parse.
_INTEGER_BOUND: Final = 2**31
_SHOWN_CHARACTERS: Final = 40
#: A text in double quotes, or the inside of one in single quotes, which the peers read too.
_QUOTED: Final = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'((?:[^'\\]|\\.)*)'""")


def split_query(query: str) -> list[tuple[str, str]]:
    """Every (name, value) in order.  Raises InvalidParameter when there are absurdly many."""
    pieces = query.replace(";", "&").split("&")
    if len(pieces) > MAX_PARAMETERS:
        raise InvalidParameter("Too many query parameters.", parameter="")
    pairs = [piece.partition("=") for piece in pieces if piece]
    return [(unquote_plus(name), unquote_plus(value)) for name, _, value in pairs]


def parse_query(query: str) -> dict[str, str]:
    """First value per name.  Raises InvalidParameter when there are absurdly many."""
    found: dict[str, str] = {}
    for name, value in split_query(query):
        found.setdefault(name, value)
    return found


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Raises InvalidBody unless the body is one JSON object; single quotes will do."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        try:
            document = json.loads(_QUOTED.sub(_double_quoted, body.decode()))
        except (ValueError, RecursionError):
            raise InvalidBody("The request body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise InvalidBody("The request body must be a JSON object.")
    return {name: value for name, value in document.items() if value is not None}


def _double_quoted(match: re.Match[str]) -> str:
    single = match[1]
    if single is None:
        return match[0]
    return json.dumps(single.replace("\\'", "'"))


def read_parameters(
    declared: Iterable[Parameter],
    given: Mapping[str, Any],
    *,
    is_strict: bool,
    empty_is_absent: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Every declared name with its value, and a warning per value not understood.

    Raises:
        InvalidParameter: One was not, and `is_strict`.
    """
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for parameter in declared:
        raw = given.get(parameter.name)
        if raw is None or (raw == "" and empty_is_absent):
            values[parameter.name] = parameter.default
            continue
        understood, value = _READERS[parameter.kind](parameter, raw)
        values[parameter.name] = value
        if not understood:
            shown = ascii(str(raw)[:_SHOWN_CHARACTERS])
            said = f"{parameter.name}={shown} is not understood"
            if is_strict:
                raise InvalidParameter(
                    f"Parameter {said}.",
                    parameter=parameter.name,
                    kind=parameter.kind,
                    value=str(raw)[:_SHOWN_CHARACTERS],
                )
            used = "unset" if value is None else str(value).lower()
            warnings.append(f"{said}, using {used}")
    return values, warnings


def _read_string(_: Parameter, raw: Any) -> tuple[bool, Any]:
    if isinstance(raw, str):
        return True, raw
    if isinstance(raw, (dict, list)):
        return False, None
    return True, json.dumps(raw)


def _read_integer(parameter: Parameter, raw: Any) -> tuple[bool, Any]:
    value = _integer(raw)
    if value is None or not -_INTEGER_BOUND <= value < _INTEGER_BOUND:
        return False, parameter.default
    if parameter.minimum is not None and value < parameter.minimum:
        return False, parameter.default
    return True, value


def _integer(raw: Any) -> int | None:
    if isinstance(raw, bool):
        return None
    if isinstance(raw, int):
        return raw
    if isinstance(raw, float):
        return int(raw) if raw.is_integer() else None
    if not isinstance(raw, str) or len(raw) > 16 or not raw.isascii():
        return None
    digits = raw[1:] if raw[:1] in ("-", "+") else raw
    return int(raw) if digits.isdigit() else None


def _read_boolean(_: Parameter, raw: Any) -> tuple[bool, Any]:
    # Only the text "true" is true, in any case; all else is false (1.2).
    if isinstance(raw, bool):
        return True, raw
    text = str(raw).lower()
    return text in ("true", "false"), text == "true"


_READERS: Final = {"string": _read_string, "integer": _read_integer, "boolean": _read_boolean}
