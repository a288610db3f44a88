"""The arguments of a call, checked as they are read: frontends are not trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from stoker.errors import InvalidParameter

T = TypeVar("T", str, int, float)


class Arguments:
    """A dict that answers with the wanted type or raises InvalidParameter."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def required(self, name: str, kind: type[T]) -> T:
        value = self.optional(name, kind)
        if value is None:
            raise InvalidParameter(f"Parameter {name} is required.", parameter=name)
        return value

    def optional(self, name: str, kind: type[T]) -> T | None:
        value = self._values.get(name)
        if value is None:
            return None
        if type(value) is not kind:
            raise InvalidParameter(f"Parameter {name} must be {kind.__name__}.", parameter=name)
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """What is no mapping counts as an empty one."""
        value = self._values.get(name)
        return value if type(value) is dict else {}

    def stated(self, names: Sequence[str]) -> dict[str, str | int | float | bool]:
        """Of these, the ones that say something; what cannot mean anything is left out."""
        found = {name: self._values.get(name) for name in names}
        return {
            name: value
            for name, value in found.items()
            if isinstance(value, (str, int, float)) and value is not False
        }

    def flag(self, name: str) -> bool:
        return self._values.get(name) is True

    def seconds(self, name: str) -> float | None:
        """A duration, int or float; None stays None."""
        value = self._values.get(name)
        if value is None:
            return None
        if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
            raise InvalidParameter(f"Parameter {name} must be seconds.", parameter=name)
        return float(value)
