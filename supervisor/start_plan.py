"""What a start does with the stored state and with what the configuration says.

The latest word wins.  A call is later than the configuration the server was
started with; a configuration that says something else than at the start before
is later than the calls.  So a start remembers which items of `load_models` have
been acted on, and what was said of worker counts when they were decided:

    an item that is new               is registered, whatever is stored under its name
    an item acted on before           its version is restored as the calls left it
      ... whose version is gone       stays away: a call has unregistered it
    an item not named any more        leaves, and the version it brought with it
    `model_snapshot`, a new one       replaces everything that is stored
    worker counts, said anew          replace those of calls

Wherever that means that somebody's word does not hold, it is a conflict and is
named.  A supervisor that is started again after a crash asks nobody: whatever
was so is so again (`launches.py`).

Source: issue "TorchServe's whole REST contract", point 4; contracts/torchserve.md 9.5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from stoker.archives.snapshot import Snapshot
from stoker.archives.startup import StartupModel
from stoker.supervisor.desired import (
    DesiredState,
    DesiredVersion,
    DropDefault,
    DropItem,
    DropVersion,
    Edit,
    Plain,
    PutDefault,
    PutItem,
)
from stoker.supervisor.versions import VersionKey

STAYS_AWAY: Final = "startup model was unregistered by a call; it stays away"
LEAVES: Final = "model came with load_models, which does not name it any more; it leaves"
REPLACED: Final = "stored model is replaced by the one that load_models names"
REPLACED_BY_SNAPSHOT: Final = "stored model is replaced by model_snapshot"
CHANGED: Final = "archive of a startup model has changed; the new one is taken"
UNUSABLE: Final = "archive of a startup model cannot be used any more; the cached copy is taken"
OTHER_CONTENT: Final = "archive is not the one that was registered; it is taken nevertheless"
WORKERS_OF_START: Final = "worker counts of the configuration replace those of a call"
WORKERS_OF_CALL: Final = "worker counts were changed by a call; they stay"
SNAPSHOT_TAKEN: Final = "model_snapshot was restored at an earlier start; later calls hold"

_SNAPSHOT_ITEM: Final = "model_snapshot:"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two words about one thing, and which of them holds."""

    event: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class StartPlan:
    """What to do, in this order.

    Attributes:
        conflicts: To be logged.
        edits: To be written, all at once.
        fresh: Items to register, after everything stored is restored.
        may_have_changed: Versions whose archive is looked at again.
        replaces_everything: What is stored is worth keeping aside.
    """

    conflicts: list[Conflict] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    fresh: list[StartupModel] = field(default_factory=list)
    may_have_changed: set[VersionKey] = field(default_factory=set)
    replaces_everything: bool = False


def plan_start(
    state: DesiredState,
    items: Sequence[StartupModel],
    snapshot: Snapshot | None,
    *,
    goes_on: bool,
    now: float,
) -> StartPlan:
    """Compare what is stored with what is said.

    Args:
        items: Of `load_models`.
        goes_on: The same server, after a crash.
        now: Seconds since 1970.
    """
    plan = StartPlan()
    snapshot_item = "" if snapshot is None else _snapshot_item(snapshot)
    if snapshot is not None and snapshot_item not in state.items:
        _take_snapshot(plan, state, snapshot, snapshot_item, now)
        plan.fresh = list(items)
        return plan
    if snapshot is not None and not goes_on:
        plan.conflicts.append(Conflict(SNAPSHOT_TAKEN, {"snapshot": snapshot.name}))
    versions = {version.item: version for version in state.versions.values() if version.item}
    plan.fresh = [item for item in items if item.key not in state.items]
    if goes_on:
        return plan
    named = {item.key for item in items}
    for item in items:
        if item.key in versions:
            plan.may_have_changed.add(versions[item.key].key)
        elif item.key in state.items:
            plan.conflicts.append(Conflict(STAYS_AWAY, {"url": item.url, "model": item.model}))
    for known in state.items:
        if known in named or known == snapshot_item:
            continue
        plan.edits.append(DropItem(known))
        if known in versions:
            gone = versions[known]
            plan.conflicts.append(Conflict(LEAVES, _names(gone)))
            plan.edits += _without(state, plan.edits, gone.key)
    return plan


def decide_workers(
    version: DesiredVersion, said: str, counts: tuple[int, int]
) -> tuple[DesiredVersion, Conflict | None]:
    """How many workers a restored startup model has.

    Args:
        said: What the configuration says now; "" for nothing.
        counts: What it would mean for a model that is registered now.
    """
    stored = (version.min_workers, version.max_workers)
    if said == version.configured_workers:
        if not said or counts == stored:
            return version, None
        event = WORKERS_OF_CALL
    else:
        version = replace(version, configured_workers=said)
        if not said or counts == stored:
            return version, None
        event = WORKERS_OF_START
        version = replace(version, min_workers=counts[0], max_workers=counts[1])
    facts = {**_names(version), "of_call": _range(stored), "of_configuration": _range(counts)}
    return version, Conflict(event, facts)


def _take_snapshot(
    plan: StartPlan, state: DesiredState, snapshot: Snapshot, item: str, now: float
) -> None:
    """The snapshot, and nothing else."""
    plan.replaces_everything = bool(state.versions)
    for version in state.versions.values():
        plan.conflicts.append(Conflict(REPLACED_BY_SNAPSHOT, _names(version)))
        plan.edits.append(DropVersion(version.key))
    plan.edits += [DropDefault(model) for model in state.defaults]
    plan.edits += [DropItem(known) for known in state.items]
    fresh = DesiredState()
    for entry in snapshot.entries:
        asked: dict[str, Plain | None] = {
            "url": entry.url,
            "handler": entry.handler,
            "runtime": entry.runtime,
            "batch_size": entry.batch_size,
            "max_batch_delay_s": entry.max_batch_delay_s,
            "response_timeout_s": entry.response_timeout_s,
            "startup_timeout_s": entry.startup_timeout_s,
        }
        version = DesiredVersion(
            entry.model,
            entry.version,
            entry.min_workers,
            entry.max_workers,
            {name: value for name, value in asked.items() if value is not None},
            registered_at=now,
        )
        fresh.apply(fresh.registering(version))
        if entry.is_default:
            fresh.apply([PutDefault(entry.model, entry.version)])
    fresh.apply([PutItem(item)])
    plan.edits += fresh.edits()


def _without(state: DesiredState, edits: list[Edit], key: VersionKey) -> list[Edit]:
    """What taking one more version away means after these edits."""
    copy = DesiredState(state.edits())
    copy.apply(edits)
    return copy.unregistering(key)


def _snapshot_item(snapshot: Snapshot) -> str:
    """Names a snapshot by what it says, wherever its file lies."""
    digest = hashlib.sha256(repr((snapshot.name, snapshot.entries)).encode()).hexdigest()
    return _SNAPSHOT_ITEM + digest


def _names(version: DesiredVersion) -> dict[str, Any]:
    return {"model": version.model, "version": version.version}


def _range(counts: tuple[int, int]) -> str:
    return f"{counts[0]}-{counts[1]}"
