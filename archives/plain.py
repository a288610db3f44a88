"""Plain data: what of a parsed JSON or YAML document may travel to a worker.

A document is small on disk and huge in memory when it repeats itself by
reference; and YAML knows dates, sets and numbers that our wire does not.  Here
it becomes dicts, lists and scalars under a budget, and what had to be changed
is said.
"""

from __future__ import annotations

import datetime
from typing import Any, Final

MAX_DEPTH: Final = 64
MAX_NODES: Final = 100_000
MAX_TEXT: Final = 4 << 20


class NotPlain(ValueError):
    """The document is too deep or too large once written out."""


class _Budget:
    __slots__ = ("changes", "nodes", "text")

    def __init__(self) -> None:
        self.nodes = MAX_NODES
        self.text = MAX_TEXT
        self.changes: list[str] = []

    def note(self, change: str) -> None:
        if len(self.changes) < 16 and change not in self.changes:
            self.changes.append(change)

    def spend(self, size: int) -> None:
        self.nodes -= 1
        self.text -= size
        if self.nodes < 0 or self.text < 0:
            raise NotPlain("the document is too large")


def plain(value: Any) -> tuple[Any, list[str]]:
    """Return the document as plain data, and a sentence per kind of change made.

    Raises:
        NotPlain: deeper than MAX_DEPTH, or beyond the budget.
    """
    budget = _Budget()
    return _plain(value, budget, MAX_DEPTH), budget.changes


def _plain(value: Any, budget: _Budget, depth: int) -> Any:
    if depth < 0:
        raise NotPlain("the document is nested too deeply")
    if isinstance(value, str):
        budget.spend(len(value))
        # A lone surrogate is legal in JSON and in nothing else.
        return value.encode("utf-8", "replace").decode("utf-8")
    budget.spend(8)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        if -(1 << 63) <= value < 1 << 64:
            return value
        budget.note("a number beyond 64 bits became text")
        return hex(value)
    if isinstance(value, dict):
        return {_key(k, budget): _plain(v, budget, depth - 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, budget, depth - 1) for item in value]
    if isinstance(value, set | frozenset):
        budget.note("a set became a list")
        return [_plain(item, budget, depth - 1) for item in sorted(value, key=repr)]
    if isinstance(value, datetime.date | datetime.datetime):
        budget.note("a date became text")
        return value.isoformat()
    if isinstance(value, bytes):
        budget.spend(len(value))
        return value
    budget.note("a value of an unknown type became text")
    return _plain(str(value), budget, depth - 1)


def _key(key: Any, budget: _Budget) -> str:
    if not isinstance(key, str):
        budget.note("a key that is not text became text")
        key = str(key)
    text: str = _plain(key, budget, 0)
    return text
