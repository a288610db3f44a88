"""A table of a TOML file's array of tables, with the line where it begins."""

from __future__ import annotations

from typing import Any


class Table(dict[str, Any]):
    """As the parser made it; `line` counts from 1."""

    line: int = 0
