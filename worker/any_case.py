"""A dict whose names are found in any case: headers, and properties of inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class AnyCase(dict[str, Any]):
    """A plain dict when enumerated; looked up, names ignore case.

    `_` and `-` stay different, and an exact match is found first.
    """

    def __init__(self, items: Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__()
        #: By name in lower case, as it is spelled here.
        self._spelling: dict[str, str] = {}
        for name, value in items:
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self._spelling[name.lower()] = name

    def __missing__(self, name: str) -> Any:
        spelled = self._spelling.get(name.lower())
        if spelled is None or spelled == name or not super().__contains__(spelled):
            raise KeyError(name)
        return super().__getitem__(spelled)

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        return isinstance(name, str) and super().__contains__(self._spelling.get(name.lower()))

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default
