"""Every setting by name, as the loader and the command line see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from types import MappingProxyType
from typing import Any, Final

from stoker.settings.about import About
from stoker.settings.record import Settings


@dataclass(frozen=True, slots=True)
class Known:
    """One setting as the loader sees it; `kind` is the annotation's text."""

    name: str
    kind: str
    default: Any
    about: About

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        return "STOKER_" + self.name.upper()

    @property
    def peer_env(self) -> str | None:
        """The peer's variable, where the peer lets the environment decide (9.3, column N)."""
        if not self.about.is_peer_key or self.about.peer_env == "-":
            return None
        return "TS_" + (self.about.peer_env or self.name.upper())


def _known() -> Mapping[str, Known]:
    found = {}
    for item in fields(Settings):
        assert isinstance(item.type, str)
        assert item.default is not MISSING
        found[item.name] = Known(item.name, item.type, item.default, item.metadata["about"])
    return MappingProxyType(found)


#: Every setting by name, in the order of the record.
KNOWN: Final[Mapping[str, Known]] = _known()
