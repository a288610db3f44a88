"""The start: stored state and configuration become what is served.

What `start_plan.py` decides is carried out here, one version after the other in
order of registration; nothing that is wrong with one of them stops the rest.
What must be downloaded again is fetched while the others serve already.

Source: contracts/torchserve.md 9.4 and 9.5; issue "TorchServe's whole REST contract", point 4.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from stoker.archives.resolve import DJL, ArchiveElsewhere, ArchiveRequest, ResolvedArchive
from stoker.archives.snapshot import read_snapshot
from stoker.archives.startup import StartupModel
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
from stoker.settings.models_json import read_models
from stoker.supervisor.absent_versions import AbsentVersions
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.desired import (
    DesiredState,
    DesiredVersion,
    DropVersion,
    Edit,
    Plain,
    PutDefault,
    PutItem,
    PutVersion,
)
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.journal import Journal
from stoker.supervisor.kept_arguments import archive_request, desired_version
from stoker.supervisor.registrations import Registrations
from stoker.supervisor.specs import startup_workers
from stoker.supervisor.start_plan import (
    CHANGED,
    OTHER_CONTENT,
    REPLACED,
    SNAPSHOT_TAKEN,
    UNUSABLE,
    WORKERS_OF_CALL,
    Conflict,
    StartPlan,
    decide_workers,
    plan_start,
)
from stoker.supervisor.versions import VersionKey

log = get_logger("control")

#: The network is often not there yet when a machine has started.
FETCH_AGAIN_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
FETCHING: Final = "The archive is being fetched again."
BROKEN: Final = "The version could not be restored; see the supervisor's log."
#: Where the word that does not hold is known to be the older one.
_MERE_NEWS: Final = frozenset({WORKERS_OF_CALL, SNAPSHOT_TAKEN})


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
                self._make_default(model, default)
            for item in plan.fresh:
                if self._engine.is_stopping:
                    return
                await self._load(state, item)
                self._go_on()
        if state.versions:
            log.info("models restored", models=len(state.defaults), versions=len(state.versions))

    async def _begin_with(self, plan: StartPlan, state: DesiredState) -> None:
        for conflict in plan.conflicts:
            _name(conflict)
        try:
            if plan.replaces_everything:
                folder = self._keep_aside("before-snapshot")
                await self._journal.copy_to(folder / "state.db")
                log.warning("stored state put aside", kept_as=str(folder))
        except (OSError, StateNotWritten) as error:
            log.error("stored state could not be put aside", reason=str(error))
        if plan.edits or not state.is_empty:
            await self._write(plan.edits)

    async def _write(self, edits: Sequence[Edit]) -> bool:
        """A start on a full disk is a start nevertheless; the next one decides again."""
        try:
            await self._journal.write(edits)
        except StateNotWritten:
            return False
        return True

    def _make_default(self, model: str, version: str) -> None:
        with suppress(StokerError):  # it may be one that could not be served
            self._engine.registry.set_default(model, version)

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
                _name(Conflict(event, {**_names(version), "becomes": archive.version}))
            if version.item is not None and not self._goes_on:
                counts = startup_workers(archive, self._settings, self._places)
                fresh, conflict = decide_workers(fresh, self._said(fresh.key), counts)
                if conflict is not None:
                    _name(conflict)
            is_written = True
            if _differ(version, fresh):
                edits: list[Edit] = [PutVersion(fresh)]
                if fresh.key != version.key:
                    edits.insert(0, DropVersion(version.key))
                    if state.is_default(version.key):
                        edits.append(PutDefault(*fresh.key))
                is_written = await self._write(edits)
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
            _name(Conflict(UNUSABLE, {**_names(version), "reason": error.message}))
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

    # -- what is new ----------------------------------------------------------

    async def _load(self, state: DesiredState, item: StartupModel) -> None:
        """One item of `load_models`; one that fails is logged and left out."""
        request = ArchiveRequest(
            url=item.url,
            model=item.model,
            version=item.version or None,
            default_model=item.default_model,
            default_handler=self._settings.default_service_handler,
            engine=item.engine or None,
            takes_store=True,
        )
        try:
            archive = await self._source.obtain(request)
            try:
                desired, edits = self._desired(state, item, archive)
            except BaseException:
                self._source.release(archive)
                raise
            is_written = await self._write([*edits, PutItem(item.key)])
            self._registrations.restore(desired, archive, is_written=is_written)
            default = state.defaults.get(desired.model, desired.version)
            self._make_default(desired.model, default)
        except ShuttingDown:
            pass
        except StokerError as error:
            why = error.details.get("reason")
            log.error("startup model left out", url=item.url, reason=error.message, why=why)
        except Exception:
            log.exception("startup model left out", url=item.url)

    def _desired(
        self, state: DesiredState, item: StartupModel, archive: ResolvedArchive
    ) -> tuple[DesiredVersion, list[Edit]]:
        """Raises StokerError when the item cannot be served."""
        key = VersionKey(archive.model, archive.version)
        counts = startup_workers(archive, self._settings, self._places)
        said = self._said(key)
        asked: dict[str, Plain] = {"url": item.url}
        if item.devices:
            asked["devices"] = item.devices
        if archive.contract == DJL:
            # Such archives name no version, so only the list can.
            asked |= {"engine": item.engine} if item.engine else {}
            asked |= {} if item.version else {"is_unversioned": True}
        desired = desired_version(archive, asked, counts, item.key, said)
        known = state.versions.get(key)
        if known is None:
            return desired, state.registering(desired)
        if known.item is not None:
            raise VersionExists(
                f"Model version {key.version} is already registered for model {key.model}"
            )
        is_same = known.content_hash == desired.content_hash
        if not is_same or dict(known.asked) != dict(desired.asked):
            _name(Conflict(REPLACED, {**_names(known), "url": item.url}))
        stored = replace(
            desired,
            min_workers=known.min_workers,
            max_workers=known.max_workers,
            configured_workers="",
        )
        desired, conflict = decide_workers(stored, said, counts)
        if conflict is not None:
            _name(conflict)
        with suppress(StokerError):
            self._engine.withdraw(key, self._clock.now())
        return desired, [DropVersion(key), PutVersion(desired)]

    def _said(self, key: VersionKey) -> str:
        """What the configuration says of a startup model's workers; "" for nothing."""
        override = read_models(self._settings.models).of(*key)
        numbers = (
            override.min_workers,
            override.max_workers,
            self._settings.default_workers_per_model or self._settings.startup_workers_per_model,
        )
        return "/".join(str(number or "") for number in numbers) if any(numbers) else ""


def _differ(one: DesiredVersion, other: DesiredVersion) -> bool:
    return (
        one.key != other.key
        or one.content_hash != other.content_hash
        or dict(one.asked) != dict(other.asked)
        or one.item != other.item
        or (one.min_workers, one.max_workers) != (other.min_workers, other.max_workers)
        or one.configured_workers != other.configured_workers
    )


def _names(version: DesiredVersion) -> dict[str, Any]:
    return {"model": version.model, "version": version.version}


def _name(conflict: Conflict) -> None:
    say = log.info if conflict.event in _MERE_NEWS else log.warning
    say(conflict.event, **conflict.facts)
