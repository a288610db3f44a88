"""What should be served, whatever happens to this process: models, versions, counts.

    management call -> edits -> journal (durable) -> DesiredState -> engine

The engine knows what *is*; this is what somebody asked for and was told they
would get.  A version is kept as it was asked for, not as it came out, so a
default that an operator changes later holds for it too.

A call becomes a few edits.  The journal writes the same edits in one
transaction, so that there is one place that knows, say, which version becomes
the default when the first one comes or the last one goes
(contracts/torchserve.md 3.3, 3.7, 3.9).

Source: issue "TorchServe's whole REST contract", point 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from stoker.supervisor.versions import VersionKey

#: A value that a register call may state.
Plain = str | int | float | bool


@dataclass(frozen=True, slots=True, eq=False)
class DesiredVersion:
    """One version, as it was asked for.

    Attributes:
        asked: The arguments of the register call that were given, by name.
        content_hash: Of its archive; None for a folder, for a handler from
            PYTHONPATH, and for one whose archive nobody has seen yet.
        item: What of the start's configuration brought it (`start_plan.py`);
            None: a call.
        configured_workers: What the configuration said of its worker counts
            when they were last decided; "" for nothing.
        registered_at: Seconds since 1970, for people.
    """

    model: str
    version: str
    min_workers: int = 0
    max_workers: int = 0
    asked: Mapping[str, Plain] = field(default_factory=dict)
    content_hash: str | None = None
    item: str | None = None
    configured_workers: str = ""
    registered_at: float = 0.0

    @property
    def key(self) -> VersionKey:
        return VersionKey(self.model, self.version)


@dataclass(frozen=True, slots=True, eq=False)
class DesiredWorkflow:
    """One workflow, as it was asked for; its nodes' models follow from its definition."""

    name: str
    version: str
    asked: Mapping[str, Plain] = field(default_factory=dict)
    content_hash: str | None = None
    registered_at: float = 0.0

    @property
    def key(self) -> VersionKey:
        return VersionKey(self.name, self.version)


class PutWorkflow(NamedTuple):
    workflow: DesiredWorkflow


class DropWorkflow(NamedTuple):
    key: VersionKey


class PutVersion(NamedTuple):
    """Add a version behind all others, or change one in its place."""

    version: DesiredVersion


class DropVersion(NamedTuple):
    key: VersionKey


class PutDefault(NamedTuple):
    model: str
    version: str


class DropDefault(NamedTuple):
    """The model is gone with its last version."""

    model: str


class PutItem(NamedTuple):
    """This item of the configuration has been acted on."""

    item: str


class DropItem(NamedTuple):
    item: str


class PutFact(NamedTuple):
    """A word about the state itself, by name."""

    name: str
    value: str


Edit = (
    PutVersion
    | DropVersion
    | PutDefault
    | DropDefault
    | PutItem
    | DropItem
    | PutFact
    | PutWorkflow
    | DropWorkflow
)

#: The fact that names the start this state was last used by.
LAUNCH: Final = "launch"


class DesiredState:
    """Every desired version, in order of registration.

    The methods in `-ing` say which edits a change means; `apply` makes them.
    """

    def __init__(self, edits: Iterable[Edit] = ()) -> None:
        self.versions: dict[VersionKey, DesiredVersion] = {}
        self.defaults: dict[str, str] = {}
        #: Items of the configuration that have been acted on (a dict keeps the order).
        self.items: dict[str, None] = {}
        self.facts: dict[str, str] = {}
        self.workflows: dict[VersionKey, DesiredWorkflow] = {}
        self.apply(edits)

    # -- changes --------------------------------------------------------------

    def registering(self, version: DesiredVersion) -> list[Edit]:
        """The first version of a model becomes its default."""
        edits: list[Edit] = [PutVersion(version)]
        if version.model not in self.defaults:
            edits.append(PutDefault(version.model, version.version))
        return edits

    def scaling(self, key: VersionKey, min_workers: int, max_workers: int) -> list[Edit]:
        known = self.versions.get(key)
        if known is None:  # a workflow's: its definition says how many, at the next start
            return []
        if (known.min_workers, known.max_workers) == (min_workers, max_workers):
            return []
        return [PutVersion(replace(known, min_workers=min_workers, max_workers=max_workers))]

    def unregistering(self, key: VersionKey) -> list[Edit]:
        """The oldest version that is left takes over if this was the default."""
        if key not in self.versions:
            return []
        edits: list[Edit] = [DropVersion(key)]
        left = [k.version for k in self.versions if k.model == key.model and k != key]
        if not left:
            edits.append(DropDefault(key.model))
        elif self.defaults[key.model] == key.version:
            edits.append(PutDefault(key.model, left[0]))
        return edits

    def unregistering_all(self, model: str) -> list[Edit]:
        """The model with every version it has."""
        known = [key for key in self.versions if key.model == model]
        return [*map(DropVersion, known), DropDefault(model)] if known else []

    def making_default(self, key: VersionKey) -> list[Edit]:
        return [] if self.is_default(key) else [PutDefault(key.model, key.version)]

    def edits(self) -> list[Edit]:
        """What makes an empty state this one."""
        return [
            *(PutVersion(version) for version in self.versions.values()),
            *(PutDefault(model, version) for model, version in self.defaults.items()),
            *(PutItem(item) for item in self.items),
            *(PutFact(name, value) for name, value in self.facts.items()),
            *(PutWorkflow(workflow) for workflow in self.workflows.values()),
        ]

    def apply(self, edits: Iterable[Edit]) -> None:
        for edit in edits:
            match edit:
                case PutVersion(version):
                    self.versions[version.key] = version
                case DropVersion(key):
                    self.versions.pop(key, None)
                case PutDefault(model, name):
                    self.defaults[model] = name
                case DropDefault(model):
                    self.defaults.pop(model, None)
                case PutItem(item):
                    self.items[item] = None
                case DropItem(item):
                    self.items.pop(item, None)
                case PutFact(name, value):
                    self.facts[name] = value
                case PutWorkflow(workflow):
                    self.workflows[workflow.key] = workflow
                case DropWorkflow(key):
                    self.workflows.pop(key, None)

    # -- questions ------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return not self.versions and not self.items and not self.workflows

    def is_default(self, key: VersionKey) -> bool:
        return self.defaults.get(key.model) == key.version
