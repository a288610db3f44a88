"""Versions that are served and not in the journal (yet), and how they become durable.

    registered synchronously -> add -> keep          workers are ready: written
                                    -> drop          they are not: nothing to take back
                                    -> settle        a call builds on it: written before that
    settled, and fails after all -> take_back

A registration that failed has left the engine by itself.  What a start could
not write is here as well, until a call builds on it.
"""

from __future__ import annotations

from contextlib import suppress

from stoker.clock import Clock
from stoker.errors import StateNotWritten, StokerError
from stoker.supervisor.desired import DesiredState, DesiredVersion, Edit, PutDefault
from stoker.supervisor.engine import Engine
from stoker.supervisor.journal import Journal
from stoker.supervisor.versions import VersionKey


class UnsettledVersions:
    """All of them, by key."""

    def __init__(self, engine: Engine, clock: Clock, journal: Journal) -> None:
        self._engine = engine
        self._clock = clock
        self._journal = journal
        self._versions: dict[VersionKey, DesiredVersion] = {}

    def add(self, desired: DesiredVersion) -> None:
        self._versions[desired.key] = desired

    def forget(self, key: VersionKey) -> None:
        """It was unregistered."""
        self._versions.pop(key, None)

    async def settle(self, state: DesiredState, key: VersionKey) -> None:
        """Make a version durable before something durable is said of it; inside `changing`.

        Raises:
            StateNotWritten: It is as it was.
        """
        if key in self._versions:
            await self._settle(state, key)

    async def keep(self, desired: DesiredVersion) -> None:
        """A synchronous registration succeeded.

        Raises:
            StateNotWritten: It was taken back.
        """
        key = desired.key
        async with self._journal.changing() as state:
            if self._versions.get(key) is not desired:
                return
            try:
                await self._settle(state, key)
            except StateNotWritten:
                del self._versions[key]
                with suppress(StokerError):
                    self._engine.versions.withdraw(key, self._clock.now())
                raise

    async def _settle(self, state: DesiredState, key: VersionKey) -> None:
        edits: list[Edit] = state.registering(self._versions[key])
        with suppress(StokerError):
            edits.append(PutDefault(key.model, self._engine.registry.default_version(key.model)))
        await self._journal.write(edits)
        del self._versions[key]

    def drop(self, desired: DesiredVersion) -> bool:
        """A registration failed.  False when it had been made durable before: `take_back`."""
        if self._versions.get(desired.key) is not desired:
            return False
        del self._versions[desired.key]
        return True

    async def take_back(self, desired: DesiredVersion) -> None:
        """A registration failed that had been made durable before.  Raises StateNotWritten."""
        key = desired.key
        async with self._journal.changing() as state:
            if not _is_same(state.versions.get(key), desired) or self._engine.is_stopping:
                return
            await self._journal.write(state.unregistering(key))
            if key.model in state.defaults:
                with suppress(StokerError):
                    self._engine.registry.set_default(key.model, state.defaults[key.model])


def _is_same(known: DesiredVersion | None, desired: DesiredVersion) -> bool:
    """The same registration, whatever was said of it since."""
    return known is not None and known.registered_at == desired.registered_at
