"""Telling the operator what the start has decided against somebody's word."""

from __future__ import annotations

from typing import Any, Final

from stoker.logs import get_logger
from stoker.supervisor.desired import DesiredVersion
from stoker.supervisor.start_plan import SNAPSHOT_TAKEN, WORKERS_OF_CALL, Conflict

log = get_logger("control")

#: Where the word that does not hold is known to be the older one.
_MERE_NEWS: Final = frozenset({WORKERS_OF_CALL, SNAPSHOT_TAKEN})


def name_conflict(conflict: Conflict) -> None:
    say = log.info if conflict.event in _MERE_NEWS else log.warning
    say(conflict.event, **conflict.facts)


def names_of(version: DesiredVersion) -> dict[str, Any]:
    """The facts that every such event has."""
    return {"model": version.model, "version": version.version}
