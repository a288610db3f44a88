"""What clients and operators remember of what they asked for."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.supervisor.versions import VersionKey


class Broken(Exception):
    """A promise is broken; not an AssertionError, which the engine uses itself."""


def check(holds: object, promise: str, *facts: object) -> None:
    if not holds:
        raise Broken(f"{promise}: {facts}")


@dataclass(slots=True)
class SimJob:
    """A job that has not ended, as its client sees it."""

    order: int
    key: VersionKey
    deadline: float
    payload: bytes
    holder: int | None = None
    ends_in_hand: bool = False
    #: Workers that died with it begun.
    deaths: int = 0


@dataclass(slots=True)
class SimCall:
    """A management call that waits."""

    verb: str
    key: VersionKey
    until: float
    is_resolved: bool = False
