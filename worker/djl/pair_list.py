"""Contents in the order they were sent; a key may be missing or come twice.

Source: contracts/djl-serving.md 13.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class PairList:
    """Keys with values, by name or by position."""

    def __init__(
        self,
        keys: list[str | None] | None = None,
        values: list[Any] | None = None,
        pairs: dict[str, Any] | None = None,
    ) -> None:
        self.keys: list[str | None] = list(keys or ())
        self.values: list[Any] = list(values or ())
        for key, value in (pairs or {}).items():
            self.add(key, value)

    def add(self, key: str | None = None, value: Any = None) -> None:
        self.keys.append(key)
        self.values.append(value)

    def size(self) -> int:
        return len(self.keys)

    def is_empty(self) -> bool:
        return not self.keys

    def get(self, key: str | int | None) -> Any:
        """The first value of that name, or the one at that position; None if there is none."""
        if isinstance(key, int):
            return self.values[key]
        return self.values[self.keys.index(key)] if key in self.keys else None

    def contains_key(self, key: str) -> bool:
        return key in self.keys

    def key_at(self, index: int) -> str | None:
        return self.keys[index]

    def value_at(self, index: int) -> Any:
        return self.values[index]

    def get_keys(self) -> list[str | None]:
        return self.keys

    def get_values(self) -> list[Any]:
        return self.values

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[tuple[str | None, Any]]:
        return iter(zip(self.keys, self.values, strict=True))
