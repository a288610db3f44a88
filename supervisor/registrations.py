"""How versions come to be served: by a call, by one that is answered first, or by a start.

    register, asynchronous    archive -> journal -> engine -> answer
    register, synchronous     archive -> engine -> workers ready -> journal -> answer
    announced                 journal -> engine -> answer -> archive -> workers
    restored at the start     journal -> archive -> engine

A synchronous registration is all or nothing, so its row is written when its
workers are ready: killed before that, the next start shows nothing of it
(`unsettled_versions.py`).  A version whose archive cannot be had is served
without one (`absent_versions.py`).

Source: contracts/torchserve.md 3.1 and 9.5; issue "TorchServe's whole REST contract", point 4.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import Final

from stoker.archives.archive import ArchiveRequest, ResolvedArchive
from stoker.archives.manifest import DEFAULT_RUNTIME, DEFAULT_VERSION
from stoker.archives.model_config import NO_CONFIG
from stoker.clock import Clock
from stoker.errors import ShuttingDown, StokerError
from stoker.logs import get_logger
from stoker.names import check_model_name, check_version
from stoker.settings import Settings
from stoker.supervisor.absent_versions import AbsentVersions
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.calls import Caller, Value, WaitingCall
from stoker.supervisor.desired import DesiredVersion
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.initial_workers import initial_workers
from stoker.supervisor.journal import Journal
from stoker.supervisor.kept_arguments import desired_version, kept_arguments, kept_groups
from stoker.supervisor.memory_check import check_device_memory, check_memory
from stoker.supervisor.unsettled_versions import UnsettledVersions
from stoker.supervisor.version_archives import VersionArchives
from stoker.supervisor.version_devices import device_groups
from stoker.supervisor.versions import Failure, VersionKey, VersionSpec

log = get_logger("control")

#: A synchronous call waits for loading and a little more.
SETTLE_GRACE_S: Final = 30.0


class Registrations:
    """Puts versions into the engine and the journal, and has their workers started."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        places: DevicePlaces,
        clock: Clock,
        source: ArchiveSource,
        journal: Journal,
        archives: VersionArchives,
        unsettled: UnsettledVersions,
        absent: AbsentVersions,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._places = places
        self._clock = clock
        self._source = source
        self._journal = journal
        self._archives = archives
        self._unsettled = unsettled
        self._absent = absent

    # -- calls ----------------------------------------------------------------

    async def register(
        self, request: ArchiveRequest, arguments: Arguments, caller: Caller
    ) -> Value | None:
        """Carry out a register call; None when the answer comes later.

        Raises:
            StokerError: Nothing is registered.
        """
        asked = kept_arguments(arguments)
        check_memory(arguments, NO_CONFIG, self._settings)
        archive = await self._source.obtain(request)
        spec: VersionSpec | None = None
        try:
            spec = self._archives.spec(archive, arguments, is_startup=False)
            await self._check_memory(spec, archive, arguments)
            counts = self._counts(spec, archive, arguments)
            desired = desired_version(archive, asked, counts)
            is_synchronous = arguments.flag("synchronous") and counts[1] > 0
            async with self._journal.changing() as state:
                self._check_new(spec.key, arguments)
                if not is_synchronous:
                    await self._journal.write(state.registering(desired))
                try:
                    self._archives.serve(spec, archive)
                except ShuttingDown:  # it has been told to stop meanwhile
                    await self._journal.write(state.unregistering(spec.key))
                    raise
                if is_synchronous:
                    self._unsettled.add(desired)
                return self._staff(spec, desired, caller if is_synchronous else None)
        finally:
            self._archives.release_unless_held(spec, archive)

    async def announce(self, request: ArchiveRequest, arguments: Arguments) -> DesiredVersion:
        """Register a version whose archive has yet to be obtained: see `follow`.

        Raises:
            StokerError: Nothing is registered.
        """
        check_memory(arguments, NO_CONFIG, self._settings)
        desired = DesiredVersion(
            model=check_model_name(request.model or ""),
            version=check_version(request.version or DEFAULT_VERSION),
            asked=kept_arguments(arguments),
            registered_at=time.time(),
        )
        spec = self._absent.spec(desired)
        nothing = ResolvedArchive(desired.model, desired.version, "", DEFAULT_RUNTIME, "")
        least, most = self._counts(spec, nothing, arguments)
        desired = replace(desired, min_workers=least, max_workers=most)
        async with self._journal.changing() as state:
            self._check_new(spec.key, arguments)
            await self._journal.write(state.registering(desired))
            self._absent.add(spec, desired)
        return desired

    async def follow(self, desired: DesiredVersion, arguments: Arguments) -> None:
        """Obtain what was announced and start its workers; a failure shows in describe."""
        key = desired.key
        try:
            spec = await self._absent.bring_back(key)
            if spec is None:
                return
            archive = self._archives.archive_of(spec)
            await self._check_memory(spec, archive, arguments)
            least, most = self._counts(spec, archive, arguments)
            async with self._journal.changing() as state:
                if self._engine.registry.find(*key).spec is not spec:
                    return
                known = state.versions[key]
                if (known.min_workers, known.max_workers) != (
                    desired.min_workers,
                    desired.max_workers,
                ):
                    # Somebody has scaled it meanwhile, and later words hold.
                    least, most = known.min_workers, known.max_workers
                await self._journal.write(state.scaling(key, least, most))
                staffed = replace(desired, min_workers=least, max_workers=most)
                self.staff(spec, staffed)
        except ShuttingDown:
            pass
        except StokerError as error:
            log.warning("registration failed", model=key.model, reason=error.message)
            with suppress(StokerError):
                self._engine.versions.fail(key, Failure(error.message, error.message), 0, 0)

    # -- the start ------------------------------------------------------------

    def restore(
        self, desired: DesiredVersion, archive: ResolvedArchive, *, is_written: bool = True
    ) -> None:
        """Serve a version that nobody waits for.

        Args:
            is_written: False when it should be in the journal and is not.

        Raises:
            StokerError: It is not served, and its archive not in use.
        """
        spec: VersionSpec | None = None
        try:
            asked = Arguments(dict(desired.asked))
            spec = self._archives.spec(archive, asked, is_startup=desired.item is not None)
            self._archives.serve(spec, archive)
        finally:
            self._archives.release_unless_held(spec, archive)
        if not is_written:
            self._unsettled.add(desired)
        self.staff(spec, desired)

    # -- what they have in common ----------------------------------------------

    def _check_new(self, key: VersionKey, arguments: Arguments) -> None:
        """Raises VersionExists, ShuttingDown."""
        self._engine.versions.check_new(key)
        if arguments.flag("takes_free_name"):
            self._engine.registry.check_name_free(key.model)

    async def _check_memory(
        self, spec: VersionSpec, archive: ResolvedArchive, arguments: Arguments
    ) -> None:
        """Raises NotEnoughMemory, InvalidParameter."""
        config = archive.config or NO_CONFIG
        check_memory(arguments, config, self._settings)
        if spec.device_type == "gpu":
            known = self._places.devices
            devices = [known[index] for index in spec.device_ids] or known
            await asyncio.to_thread(check_device_memory, config, devices, self._settings)

    def _counts(
        self, spec: VersionSpec, archive: ResolvedArchive, arguments: Arguments
    ) -> tuple[int, int]:
        """Least and most workers.  Raises InvalidParameter, ManifestInvalid."""
        least, most = initial_workers(archive, arguments, self._settings)
        groups = device_groups(spec, self._places) if arguments.flag("per_device") else 1
        return least * groups, most * groups

    def staff(self, spec: VersionSpec, desired: DesiredVersion) -> None:
        """Start the workers of a version that nobody waits for."""
        with suppress(ShuttingDown):
            self._staff(spec, desired, None)

    def _staff(
        self, spec: VersionSpec, desired: DesiredVersion, caller: Caller | None
    ) -> Value | None:
        """Start its workers, if it is to have any."""
        value: Value = {
            "model": spec.model,
            "version": spec.version,
            "workers": desired.min_workers,
            "outcome": "registered",
        }
        if desired.max_workers:
            call = None if caller is None else WaitingCall(caller, value, desired)
            self._engine.versions.scale(
                spec.key,
                desired.min_workers,
                desired.max_workers,
                self._clock.now(),
                call=call,
                wait_s=spec.startup_timeout_s + SETTLE_GRACE_S,
                is_registration=call is not None,
                groups=kept_groups(spec, desired),
            )
            value["outcome"] = "scheduled"
        return value if caller is None else None
