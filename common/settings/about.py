"""What is known about one setting, and how a field of the record is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB


class Effect(Enum):
    """What setting a key does in this release."""

    NOW = "in effect"
    LATER = "not yet in effect"
    NONE = "understood but without effect"


@dataclass(frozen=True, slots=True)
class About:
    """What is known about one setting beside its type and default.

    Attributes:
        doc: One sentence for `stoker serve --help` and `stoker config`.
        is_peer_key: TorchServe has the same key.
        unit: "s", "min", "ms" or "bytes"; "" for plain values.
        choices: The only texts allowed; empty means any.
        is_pattern: The value, or each item of it, is a regular expression.
        is_secret: Never printed.
        peer_env: The peer's environment variable; "" when it has none.
    """

    doc: str
    is_peer_key: bool = False
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    is_pattern: bool = False
    is_secret: bool = False
    effect: Effect = Effect.NOW
    peer_env: str = ""


def setting(default: Any, doc: str, **about: Any) -> Any:
    """A field that stoker alone has."""
    if isinstance(default, (list, dict, set)):
        raise TypeError("settings are immutable; use a tuple")
    known = About(doc, **about)
    return field(default=default, repr=not known.is_secret, metadata={"about": known})


def peer(default: Any, doc: str, **about: Any) -> Any:
    """A field under TorchServe's own key."""
    return setting(default, doc, is_peer_key=True, **about)


def later(default: Any, doc: str, **about: Any) -> Any:
    """A peer's key whose feature is still to come: known, checked, reported."""
    return peer(default, doc, effect=Effect.LATER, **about)


def moot(default: Any, doc: str, **about: Any) -> Any:
    """A peer's key that cannot mean anything here: accepted and reported."""
    return peer(default, doc, effect=Effect.NONE, **about)
