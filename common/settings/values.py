"""One setting's value: from text or a TOML value to its type, or a clear refusal."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from stoker.addresses import parse_address
from stoker.errors import SettingsError
from stoker.java_regex import compile_java
from stoker.settings.about import GIB, KIB, MIB
from stoker.settings.known import Known
from stoker.settings.listeners import (
    MAX_LISTENERS,
    check_dialect,
    listener_text,
    read_listener,
)
from stoker.settings.models_json import read_models
from stoker.settings.toml_table import Table

_SIZE: Final = re.compile(r"([0-9]+)\s*(KiB|MiB|GiB)", re.IGNORECASE)
_FACTORS: Final = {"kib": KIB, "mib": MIB, "gib": GIB}
_MAX_DIGITS: Final = 18
_WANTED: Final = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "Path": "a path",
    "tuple[str, ...]": "a list of texts",
}


def parse_text(known: Known, text: str, source: str) -> Any:
    """A value written as text: a property, a variable, a flag."""
    kind = known.kind.removesuffix(" | None")
    text = text.strip()
    if not text and known.kind != kind:
        return None
    value = _PARSERS[kind](known, text)
    if value is None:
        raise _refuse(known, source, f"must be {_wanted(known)}, not {_shown(known, text)}")
    _check(known, value, source)
    return value


def parse_as_peer(known: Known, text: str, source: str) -> tuple[Any, str]:
    """As `parse_text`, but what the peer reads in its own way is read so; also a note of it.

    For the peer every text but `true` is false, and a metrics mode that it
    does not know is `log` (9.3).
    """
    text = text.strip()
    if known.kind == "bool" and text.lower() not in ("true", "false"):
        return False, f"{source}: {known.name}={text[:40]!r} is read as false, as TorchServe does"
    if known.name == "metrics_mode" and text not in known.about.choices:
        return "log", f"{source}: {known.name}={text[:40]!r} is read as log, as TorchServe does"
    return parse_text(known, text, source), ""


def parse_value(known: Known, value: Any, source: str) -> Any:
    """A value from a TOML file, where it already has a type."""
    if isinstance(value, str):
        return parse_text(known, value, source)
    kind = known.kind.removesuffix(" | None")
    if known.name == "listeners" and isinstance(value, list):
        checked: Any = tuple(_listener_item(known, item, source) for item in value)
    elif isinstance(value, list) and kind == "tuple[str, ...]":
        if not all(isinstance(item, str) for item in value):
            raise _refuse(known, source, f"must be {_WANTED[kind]}")
        checked = tuple(value)
    elif isinstance(value, bool) and kind == "bool":
        checked = value
    elif isinstance(value, int) and not isinstance(value, bool) and kind in ("int", "float"):
        checked = value if kind == "int" else float(value)
    elif isinstance(value, float) and kind == "float":
        checked = value
    else:
        raise _refuse(known, source, f"must be {_wanted(known)}, not {_shown(known, str(value))}")
    _check(known, checked, source)
    return checked


def _listener_item(known: Known, item: Any, source: str) -> str:
    """A table as text, checked where it stands: the list as a whole stands elsewhere."""
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        raise _refuse(known, source, "must be a list of texts or tables")
    if isinstance(item, Table):
        source = f"{source.rpartition(':')[0]}:{item.line}"
    try:
        text = listener_text(item)
        read_listener(text)
    except SettingsError as error:
        raise _refuse(known, source, f"cannot be that: {error.message}") from None
    return text


def _bool(known: Known, text: str) -> bool | None:
    # Anything else is false for the peer; saying so beats guessing.
    return {"true": True, "false": False}.get(text.lower())


def _int(known: Known, text: str) -> int | None:
    if known.about.unit == "bytes" and (match := _SIZE.fullmatch(text)):
        return int(match[1][:_MAX_DIGITS]) * _FACTORS[match[2].lower()]
    if re.fullmatch(r"[+-]?[0-9]+", text) and len(text) <= _MAX_DIGITS:
        return int(text)
    return None


def _float(known: Known, text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value


def _text(known: Known, text: str) -> str | None:
    return text


def _path(known: Known, text: str) -> Path | None:
    if not text or "\0" in text:
        return None
    return Path(os.path.abspath(os.path.expanduser(text)))


def _texts(known: Known, text: str) -> tuple[str, ...] | None:
    return tuple(item.strip() for item in text.split(",") if item.strip())


_PARSERS: Final[dict[str, Callable[[Known, str], Any]]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": _text,
    "Path": _path,
    "tuple[str, ...]": _texts,
}


def _check(known: Known, value: Any, source: str) -> None:
    """What the type alone does not say."""
    about = known.about
    if about.choices and str(value) not in about.choices:
        raise _refuse(known, source, f"must be one of {', '.join(about.choices)}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise _refuse(known, source, f"must be {_wanted(known)}, not {value!r}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        is_low = about.minimum is not None and value < about.minimum
        is_high = about.maximum is not None and value > about.maximum
        if is_low or is_high:
            raise _refuse(known, source, f"must be {_wanted(known)}, not {value}")
    if about.is_pattern:
        for pattern in [value] if isinstance(value, str) else value:
            _check_pattern(known, pattern, source)
    if known.name in ("inference_address", "management_address", "metrics_address"):
        try:
            parse_address(value, known.name.partition("_")[0])
        except SettingsError as error:
            raise _refuse(known, source, error.message, names_itself=True) from None
    if known.name == "dialect":
        try:
            check_dialect(value)
        except SettingsError as error:
            raise _refuse(known, source, error.message) from None
    if known.name == "listeners":
        _check_listeners(known, value, source)
    if known.name == "models":
        try:
            read_models(value)
        except SettingsError as error:
            raise _refuse(known, source, error.message, names_itself=True) from None
    if known.name == "model_snapshot" and value:
        try:
            json.loads(value)
        except ValueError as error:
            raise _refuse(known, source, f"must be JSON: {error}") from None


def _check_listeners(known: Known, items: tuple[str, ...], source: str) -> None:
    if len(items) > MAX_LISTENERS:
        raise _refuse(known, source, f"must be at most {MAX_LISTENERS}")
    for item in items:
        try:
            read_listener(item)
        except SettingsError as error:
            raise _refuse(known, source, f"cannot be {item[:100]!r}: {error.message}") from None


def _check_pattern(known: Known, pattern: str, source: str) -> None:
    try:
        compile_java(pattern)
    except re.error as error:
        raise _refuse(known, source, f"is not a regular expression: {pattern!r}: {error}") from None


def _wanted(known: Known) -> str:
    about = known.about
    wanted = _WANTED[known.kind.removesuffix(" | None")]
    unit = {"bytes": " of bytes", "s": " of seconds", "min": " of minutes", "ms": " of ms"}
    wanted += unit.get(about.unit, "")
    if about.unit == "bytes":
        wanted += " (or like 64MiB)"
    if about.minimum is not None and about.maximum is not None:
        return f"{wanted} from {about.minimum} to {about.maximum}"
    if about.minimum is not None:
        return f"{wanted} of at least {about.minimum}"
    return wanted


def _shown(known: Known, text: str) -> str:
    return "what it is" if known.about.is_secret else repr(text[:200])


def _refuse(known: Known, source: str, text: str, names_itself: bool = False) -> SettingsError:
    message = f"{source}: {text}" if names_itself else f"{source}: {known.name} {text}"
    return SettingsError(message, setting=known.name, source=source)
