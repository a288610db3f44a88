"""Settings in TOML: flat keys, or a `[stoker]` table."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

from stoker.errors import SettingsError
from stoker.settings.toml_table import Table

_TABLE: Final = re.compile(r"\s*\[{1,2}\s*([^\[\]]+?)\s*\]")
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
    entries = [("", key, value) for key, value in document.items()]
    entries += [("stoker", key, value) for key, value in table.items()]
    return [
        (key, _placed(value, lines.get((where, key), [])), lines.get((where, key), [0])[0])
        for where, key, value in entries
    ]


def _placed(value: Any, lines: list[int]) -> Any:
    """Each table of an array of tables knows its line, if its header has one."""
    if not isinstance(value, list) or len(lines) != len(value):
        return value
    tables = []
    for item, line in zip(value, lines, strict=True):
        if not isinstance(item, dict):
            return value
        table = Table(item)
        table.line = line
        tables.append(table)
    return tables


def _lines(text: str) -> dict[tuple[str, str], list[int]]:
    """Where each key of each table stands; good enough for a message to a person.

    An array of tables has a line for each of its headers.

    The standard parser keeps no positions.  A line inside a multi-line string
    may look like a key, so the first of a name wins.
    """
    table = ""
    found: dict[tuple[str, str], list[int]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _TABLE.match(line):
            table = match[1]
            above, _, name = table.rpartition(".")
            found.setdefault((above, name), []).append(number)
        elif match := _KEY.match(line):
            found.setdefault((table, match[1]), [number])
    return found
