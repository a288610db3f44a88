"""Settings in TOML: flat keys, or a `[stoker]` table."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

from stoker.errors import SettingsError

_TABLE: Final = re.compile(r"\s*\[\s*([^\]]+?)\s*\]")
_KEY: Final = re.compile(r"""\s*["']?([A-Za-z0-9_\-.]+)["']?\s*=""")


def read_toml(content: bytes, path: str) -> list[tuple[str, Any, int]]:
    """Every (key, value, line), or SettingsError with the place."""
    try:
        text = content.decode()
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: not TOML: {error}", source=path) from None
    table = document.pop("stoker", {})
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: stoker must be a table", source=path)
    lines = _lines(text)
    entries = [(key, value, lines.get(("", key), 0)) for key, value in document.items()]
    entries += [(key, value, lines.get(("stoker", key), 0)) for key, value in table.items()]
    return entries


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Where each key of each table stands; good enough for a message to a person.

    The standard parser keeps no positions.  A line inside a multi-line string
    may look like a key, so the first of a name wins.
    """
    table = ""
    found: dict[tuple[str, str], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _TABLE.match(line):
            table = match[1]
            found.setdefault(("", table), number)
        elif match := _KEY.match(line):
            found.setdefault((table, match[1]), number)
    return found
