"""What `load_models` names and nobody has acted on yet: fetched, registered, served.

An item that fails is logged and left out.

Source: contracts/torchserve.md 9.4 and 9.5.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from stoker.archives.archive import DJL, ArchiveRequest, ResolvedArchive
from stoker.archives.startup import StartupModel
from stoker.clock import Clock
from stoker.errors import ShuttingDown, StokerError, VersionExists
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.settings.models_json import read_models
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.desired import (
    DesiredState,
    DesiredVersion,
    DropVersion,
    Edit,
    Plain,
    PutItem,
    PutVersion,
)
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.initial_workers import startup_workers
from stoker.supervisor.journal import Journal
from stoker.supervisor.kept_arguments import desired_version
from stoker.supervisor.registrations import Registrations
from stoker.supervisor.start_conflicts import name_conflict, names_of
from stoker.supervisor.start_plan import REPLACED, Conflict, decide_workers
from stoker.supervisor.versions import VersionKey

log = get_logger("control")


class StartupLoads:
    """At one start."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        places: DevicePlaces,
        clock: Clock,
        source: ArchiveSource,
        journal: Journal,
        registrations: Registrations,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._places = places
        self._clock = clock
        self._source = source
        self._journal = journal
        self._registrations = registrations

    async def load(self, state: DesiredState, item: StartupModel) -> None:
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
            is_written = await self._journal.try_to_write([*edits, PutItem(item.key)])
            self._registrations.restore(desired, archive, is_written=is_written)
            default = state.defaults.get(desired.model, desired.version)
            make_default(self._engine, desired.model, default)
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
        said = configured_workers(self._settings, key)
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
            name_conflict(Conflict(REPLACED, {**names_of(known), "url": item.url}))
        stored = replace(
            desired,
            min_workers=known.min_workers,
            max_workers=known.max_workers,
            configured_workers="",
        )
        desired, conflict = decide_workers(stored, said, counts)
        if conflict is not None:
            name_conflict(conflict)
        with suppress(StokerError):
            self._engine.versions.withdraw(key, self._clock.now())
        return desired, [DropVersion(key), PutVersion(desired)]


def configured_workers(settings: Settings, key: VersionKey) -> str:
    """What the configuration says of a startup model's workers; "" for nothing."""
    override = read_models(settings.models).of(*key)
    numbers = (
        override.min_workers,
        override.max_workers,
        settings.default_workers_per_model or settings.startup_workers_per_model,
    )
    return "/".join(str(number or "") for number in numbers) if any(numbers) else ""


def make_default(engine: Engine, model: str, version: str) -> None:
    with suppress(StokerError):  # it may be one that could not be served
        engine.registry.set_default(model, version)
