"""Models, their versions, and which version is the default.

Versions are opaque strings.  The first registered version of a name becomes
the default and stays it until somebody says otherwise
(contracts/torchserve.md 3.3, 3.7, 3.9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from stoker.errors import DefaultVersionInUse, ModelNotFound, VersionExists, VersionNotFound
from stoker.supervisor.versions import VersionKey

V = TypeVar("V")


class Registry(Generic[V]):
    """A map from (model, version) to whatever the engine keeps for a version."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, V]] = {}
        self._defaults: dict[str, str] = {}
        #: Whose turn it is, of the versions of models that were asked so.
        self._turns: dict[str, int] = {}

    def __iter__(self) -> Iterator[V]:
        for versions in self._models.values():
            yield from versions.values()

    def names(self) -> list[str]:
        return sorted(self._models)

    def check_free(self, key: VersionKey) -> None:
        """Raises VersionExists."""
        if key.version in self._models.get(key.model, ()):
            raise VersionExists(
                f"Model version {key.version} is already registered for model {key.model}",
                model=key.model,
                version=key.version,
            )

    def check_name_free(self, model: str) -> None:
        """For who knows no versions.  Raises VersionExists."""
        if model in self._models:
            raise VersionExists(
                f"Model {model} is already registered.",
                model=model,
                version=self._defaults[model],
            )

    def add(self, key: VersionKey, value: V) -> None:
        """Raises VersionExists."""
        self.check_free(key)
        versions = self._models.get(key.model)
        if versions is None:
            self._models[key.model] = {key.version: value}
            self._defaults[key.model] = key.version
        else:
            versions[key.version] = value

    def replace(self, key: VersionKey, value: V) -> None:
        """Put another value in a version's place.  Raises ModelNotFound, VersionNotFound."""
        self.find(*key)
        self._models[key.model][key.version] = value

    def find(self, model: str, version: str | None = None) -> V:
        """The named version, or the default one.

        Raises:
            ModelNotFound, VersionNotFound.
        """
        versions = self._versions(model)
        try:
            return versions[self._defaults[model] if version is None else version]
        except KeyError:
            raise VersionNotFound(
                f"Model version: {version} does not exist for model: {model}",
                model=model,
                version=version,
            ) from None

    def next_of(self, model: str, may_take: Callable[[V], bool]) -> V:
        """The version whose turn it is, or after it the first that may take a job.

        Raises:
            ModelNotFound.
        """
        versions = list(self._versions(model).values())
        if len(versions) == 1:
            return versions[0]
        turn = self._turns.get(model, 0) % len(versions)
        in_turn = [*versions[turn:], *versions[:turn]]
        step = next((i for i, value in enumerate(in_turn) if may_take(value)), 0)
        self._turns[model] = turn + step + 1
        return in_turn[step]

    def all_versions(self, model: str) -> list[V]:
        """In order of registration.  Raises ModelNotFound."""
        return list(self._versions(model).values())

    def default_version(self, model: str) -> str:
        """Raises ModelNotFound."""
        self._versions(model)
        return self._defaults[model]

    def is_default(self, model: str, version: str) -> bool:
        """Also for one that has left already."""
        return self._defaults.get(model) == version

    def set_default(self, model: str, version: str) -> None:
        """Raises ModelNotFound, VersionNotFound."""
        self.find(model, version)
        self._defaults[model] = version

    def check_removable(
        self, model: str, version: str | None, *, may_be_default: bool = False
    ) -> V:
        """The version that `remove` would take away.

        Args:
            may_be_default: Also while others are there, one of which then takes over.

        Raises:
            ModelNotFound, VersionNotFound, DefaultVersionInUse.
        """
        value = self.find(model, version)
        chosen = self._defaults[model] if version is None else version
        is_needed = chosen == self._defaults[model] and len(self._models[model]) > 1
        if is_needed and not may_be_default:
            raise DefaultVersionInUse(
                f"Cannot remove default version for model {model}", model=model, version=chosen
            )
        return value

    def discard(self, key: VersionKey) -> None:
        """Take a version away whatever it is; the oldest left becomes the default if need be."""
        versions = self._models.get(key.model)
        if versions is None or versions.pop(key.version, None) is None:
            return
        if not versions:
            del self._models[key.model]
            del self._defaults[key.model]
            self._turns.pop(key.model, None)
        elif self._defaults[key.model] == key.version:
            self._defaults[key.model] = next(iter(versions))

    def _versions(self, model: str) -> dict[str, V]:
        try:
            return self._models[model]
        except KeyError:
            raise ModelNotFound(f"Model not found: {model}", model=model) from None
