"""The start: stored state and configuration become what is served.

What `start_plan.py` decides is carried out here, one version after the other in
order of registration; nothing that is wrong with one of them stops the rest.
What must be downloaded again is fetched while the others serve already.
`startup_loads.py` has what is new.

Source: contracts/torchserve.md 9.4 and 9.5; issue "TorchServe's whole REST contract", point 4.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from stoker.archives.archive import ArchiveRequest, ResolvedArchive
from stoker.archives.obtaining import ArchiveElsewhere
from stoker.archives.snapshot import read_snapshot
from stoker.clock import Clock
from stoker.errors import (
    ArchiveNotFound,
    ShuttingDown,
    StateNotWritten,
    StokerError,
    VersionExists,
)
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.absent_versions import AbsentVersions
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.desired import (
    DesiredState,
    DesiredVersion,
    DropVersion,
    Edit,
    PutDefault,
    PutVersion,
)
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.initial_workers import startup_workers
from stoker.supervisor.journal import Journal
from stoker.supervisor.kept_arguments import archive_request
from stoker.supervisor.registrations import Registrations
from stoker.supervisor.start_conflicts import name_conflict, names_of
from stoker.supervisor.start_plan import (
    CHANGED,
    OTHER_CONTENT,
    UNUSABLE,
    Conflict,
    StartPlan,
    decide_workers,
    plan_start,
)
from stoker.supervisor.startup_loads import StartupLoads, configured_workers, make_default
from stoker.supervisor.versions import VersionKey

log = get_logger("control")

#: The network is often not there yet when a machine has started.
FETCH_AGAIN_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
FETCHING: Final = "The archive is being fetched again."
BROKEN: Final = "The version could not be restored; see the supervisor's log."


class Restoring:
    """One start.

    Args:
        goes_on: The same server, after a crash.
        keep_aside: Makes a folder for what is taken out of use.
        begin: Runs something beside everything else.
        go_on: Called after every version: carries out what the engine decided.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        places: DevicePlaces,
        clock: Clock,
        source: ArchiveSource,
        journal: Journal,
        registrations: Registrations,
        absent: AbsentVersions,
        *,
        goes_on: bool,
        keep_aside: Callable[[str], Path],
        begin: Callable[[Coroutine[Any, Any, None]], None],
        go_on: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._places = places
        self._clock = clock
        self._source = source
        self._journal = journal
        self._registrations = registrations
        self._absent = absent
        self._goes_on = goes_on
        self._keep_aside = keep_aside
        self._begin = begin
        self._go_on = go_on
        self._loads = StartupLoads(settings, engine, places, clock, source, journal, registrations)

    async def run(self) -> None:
        """Raises SettingsError for a `load_models` or a `model_snapshot` that cannot be."""
        items = self._source.startup_models()
        text = self._settings.model_snapshot
        snapshot = read_snapshot(text) if text else None
        async with self._journal.changing() as state:
            plan = plan_start(state, items, snapshot, goes_on=self._goes_on, now=time.time())
            await self._begin_with(plan, state)
            for version in list(state.versions.values()):
                if self._engine.is_stopping:
                    return
                await self._restore(state, version, version.key in plan.may_have_changed)
                self._go_on()
            for model, default in state.defaults.items():
                make_default(self._engine, model, default)
            for item in plan.fresh:
                if self._engine.is_stopping:
                    return
                await self._loads.load(state, item)
                self._go_on()
        if state.versions:
            log.info("models restored", models=len(state.defaults), versions=len(state.versions))

    async def _begin_with(self, plan: StartPlan, state: DesiredState) -> None:
        for conflict in plan.conflicts:
            name_conflict(conflict)
        try:
            if plan.replaces_everything:
                folder = self._keep_aside("before-snapshot")
                await self._journal.copy_to(folder / "state.db")
                log.warning("stored state put aside", kept_as=str(folder))
        except (OSError, StateNotWritten) as error:
            log.error("stored state could not be put aside", reason=str(error))
        if plan.edits or not state.is_empty:
            # A start on a full disk is a start nevertheless; the next one decides again.
            await self._journal.try_to_write(plan.edits)

    # -- what is stored -------------------------------------------------------

    async def _restore(
        self, state: DesiredState, version: DesiredVersion, may_have_changed: bool
    ) -> None:
        """Serve it, or what there is of it."""
        try:
            archive, version, is_written = await self._obtain(state, version, may_have_changed)
            self._registrations.restore(version, archive, is_written=is_written)
        except ShuttingDown:
            pass  # told to stop while it starts; the next start restores it
        except ArchiveElsewhere:
            self._serve_absent(version, FETCHING)
            self._begin(self._fetch(version.key))
        except ArchiveNotFound:
            self._serve_absent(
                version,
                f"Model archive file for model :{version.model}, version :{version.version} "
                "not found in model store",
            )
        except StokerError as error:
            self._serve_absent(version, error.message)
        except Exception:
            log.exception("version not restored", model=version.model, version=version.version)
            self._serve_absent(version, BROKEN)

    def _serve_absent(self, version: DesiredVersion, reason: str) -> None:
        try:
            self._absent.fail(version, reason)
        except Exception:
            log.exception("version left out", model=version.model, version=version.version)

    async def _obtain(
        self, state: DesiredState, version: DesiredVersion, may_have_changed: bool
    ) -> tuple[ResolvedArchive, DesiredVersion, bool]:
        """Its archive, the version as it is from now on, and whether that is durable.

        Raises:
            StokerError: It cannot be had now.
        """
        archive = await self._look_again(state, version) if may_have_changed else None
        event = CHANGED
        if archive is None:
            event = OTHER_CONTENT
            request = archive_request(version, self._settings.default_service_handler)
            archive = await self._source.obtain(request, may_fetch=False)
        try:
            fresh = replace(version, version=archive.version, content_hash=archive.content_hash)
            if version.content_hash not in (None, archive.content_hash):
                name_conflict(Conflict(event, {**names_of(version), "becomes": archive.version}))
            if version.item is not None and not self._goes_on:
                counts = startup_workers(archive, self._settings, self._places)
                fresh, conflict = decide_workers(
                    fresh, configured_workers(self._settings, fresh.key), counts
                )
                if conflict is not None:
                    name_conflict(conflict)
            is_written = True
            if _differ(version, fresh):
                edits: list[Edit] = [PutVersion(fresh)]
                if fresh.key != version.key:
                    edits.insert(0, DropVersion(version.key))
                    if state.is_default(version.key):
                        edits.append(PutDefault(*fresh.key))
                is_written = await self._journal.try_to_write(edits)
        except BaseException:
            self._source.release(archive)
            raise
        return archive, fresh, is_written

    async def _look_again(
        self, state: DesiredState, version: DesiredVersion
    ) -> ResolvedArchive | None:
        """The file that a startup model means now; None: as at the registration.

        A file of the model store is known by its times and its size, so one
        that nobody touched costs nothing.
        """
        url = version.asked.get("url")
        if not isinstance(url, str) or urlsplit(url).scheme in ("http", "https"):
            return None
        request = ArchiveRequest(
            url=url,
            model=version.model,
            default_handler=self._settings.default_service_handler,
        )
        try:
            archive = await self._source.obtain(request)
            key = VersionKey(archive.model, archive.version)
            if key != version.key and key in state.versions:
                self._source.release(archive)
                raise VersionExists(f"Version {key.version} is registered already.")
        except StokerError as error:
            if version.content_hash is None:
                raise
            name_conflict(Conflict(UNUSABLE, {**names_of(version), "reason": error.message}))
            return None
        return archive

    async def _fetch(self, key: VersionKey) -> None:
        """Download again what the cache has lost; others are served meanwhile."""
        for pause_s in (*FETCH_AGAIN_S, None):
            desired = self._journal.state.versions.get(key)
            if desired is None or key not in self._absent:
                return
            try:
                spec = await self._absent.bring_back(key)
            except StokerError as error:
                self._serve_absent(desired, error.message)
                if not error.retryable or pause_s is None:
                    return
                await asyncio.sleep(pause_s)
                continue
            if spec is not None:
                self._registrations.staff(spec, desired)
                self._go_on()
            return


def _differ(one: DesiredVersion, other: DesiredVersion) -> bool:
    return (
        one.key != other.key
        or one.content_hash != other.content_hash
        or dict(one.asked) != dict(other.asked)
        or one.item != other.item
        or (one.min_workers, one.max_workers) != (other.min_workers, other.max_workers)
        or one.configured_workers != other.configured_workers
    )
