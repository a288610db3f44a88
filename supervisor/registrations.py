"""Registered versions with their archives, and how far each is durable.

    register, asynchronous    archive -> journal -> engine -> answer
    register, synchronous     archive -> engine -> workers ready -> journal -> answer
    restored at the start     journal -> archive -> engine

A synchronous registration is all or nothing, so its row is written when its
workers are ready: killed before that, the next start shows nothing of it.  A
call that builds on such a version (scale, set-default) makes it durable first.

A version whose archive cannot be had is served without one: it is FAILED, it
says why, and it is tried again when somebody scales it.

Source: contracts/torchserve.md 3.1 and 9.5; issue "TorchServe's whole REST contract", point 4.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from stoker.archives.manifest import DEFAULT_RUNTIME, DEFAULT_VERSION
from stoker.archives.resolve import ArchiveRequest, ResolvedArchive
from stoker.clock import Clock
from stoker.errors import InvalidParameter, ShuttingDown, StateNotWritten, StokerError
from stoker.logs import get_logger
from stoker.names import check_model_name, check_version
from stoker.settings import Settings
from stoker.supervisor.adapter_files import remove_adapters
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.calls import Caller, WaitingCall
from stoker.supervisor.desired import (
    DesiredState,
    DesiredVersion,
    Edit,
    Plain,
    PutDefault,
    PutVersion,
)
from stoker.supervisor.device_groups import Group, from_text, to_text
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.fencing import FencingMeans
from stoker.supervisor.journal import Journal
from stoker.supervisor.memory_check import check_device_memory, check_memory
from stoker.supervisor.served import Served
from stoker.supervisor.specs import (
    NO_CONFIG,
    build_spec,
    check_batch_size,
    device_groups,
    initial_workers,
)
from stoker.supervisor.versions import Failure, VersionKey, VersionSpec

log = get_logger("control")

#: What of a register call is kept; the rest is kept elsewhere (names, worker
#: counts) or is about the call alone.
KEPT_ARGUMENTS: Final = (
    "url",
    "handler",
    "runtime",
    "batch_size",
    "max_batch_delay_s",
    "response_timeout_s",
    "startup_timeout_s",
    "s3_sse_kms",
    "queue_capacity",
    "max_idle_s",
    "queue_wait_target_s",
    "required_memory_mb",
    "reserved_memory_mb",
    "devices",
    "per_device",
    "engine",
    "is_unversioned",
    "preload",
    "number_gpu",
)
#: Kept beside them: the bounds of each device, where a scale call said them.
GROUP_BOUNDS: Final = "group_bounds"
#: Of those, what a scale call may change.
TUNED_ARGUMENTS: Final = ("batch_size", "max_batch_delay_s", "max_idle_s", "number_gpu")
MAX_KEPT_CHARACTERS: Final = 64 * 1024
#: A synchronous call waits for loading and a little more.
SETTLE_GRACE_S: Final = 30.0


class Registrations:
    """Puts versions into the engine and the journal, and keeps their archives in use."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        places: DevicePlaces,
        clock: Clock,
        archives: ArchiveSource,
        journal: Journal,
        means: FencingMeans,
    ) -> None:
        self._settings = settings
        self._means = means
        self._engine = engine
        self._places = places
        self._clock = clock
        self._archives = archives
        self._journal = journal
        #: Archives in use, until the last worker of their version is gone.
        self._held: dict[VersionSpec, ResolvedArchive] = {}
        #: Served, and not in the journal (yet).
        self._unsettled: dict[VersionKey, DesiredVersion] = {}
        #: Served without their archives.
        self._absent: dict[VersionKey, DesiredVersion] = {}
        #: Names, in order; they stay when their models go (`/invocations`).
        self.loaded_at_start: list[str] = []

    @property
    def is_stopping(self) -> bool:
        """Nothing is taken any more."""
        return self._engine.is_stopping

    # -- calls ----------------------------------------------------------------

    async def register(
        self, request: ArchiveRequest, arguments: Arguments, caller: Caller
    ) -> dict[str, Any] | None:
        """Carry out a register call; None when the answer comes later.

        Raises:
            StokerError: Nothing is registered.
        """
        asked = kept_arguments(arguments)
        check_memory(arguments, NO_CONFIG, self._settings)
        archive = await self._archives.obtain(request)
        spec: VersionSpec | None = None
        try:
            spec = self.spec(archive, arguments, is_startup=False)
            await self._check_memory(spec, archive, arguments)
            counts = self._counts(spec, archive, arguments)
            desired = desired_version(archive, asked, counts)
            is_synchronous = arguments.flag("synchronous") and counts[1] > 0
            async with self._journal.changing() as state:
                self._check_new(spec.key, arguments)
                if not is_synchronous:
                    await self._journal.write(state.registering(desired))
                try:
                    self.serve(spec, archive)
                except ShuttingDown:  # it has been told to stop meanwhile
                    await self._journal.write(state.unregistering(spec.key))
                    raise
                if is_synchronous:
                    self._unsettled[spec.key] = desired
                return self._staff(spec, desired, caller if is_synchronous else None)
        finally:
            self._release_unless_held(spec, archive)

    def _check_new(self, key: VersionKey, arguments: Arguments) -> None:
        """Raises VersionExists, ShuttingDown."""
        self._engine.check_new(key)
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
        spec = self._spec_of_absent(desired)
        nothing = ResolvedArchive(desired.model, desired.version, "", DEFAULT_RUNTIME, "")
        least, most = self._counts(spec, nothing, arguments)
        desired = replace(desired, min_workers=least, max_workers=most)
        async with self._journal.changing() as state:
            self._check_new(spec.key, arguments)
            await self._journal.write(state.registering(desired))
            self._engine.register(spec)
            self._absent[desired.key] = desired
        return desired

    async def follow(self, desired: DesiredVersion, arguments: Arguments) -> None:
        """Obtain what was announced and start its workers; a failure shows in describe."""
        key = desired.key
        try:
            spec = await self.bring_back(key)
            if spec is None:
                return
            archive = self._held[spec]
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
                self._engine.fail(key, Failure(error.message, error.message), 0, 0)

    def _staff(
        self, spec: VersionSpec, desired: DesiredVersion, caller: Caller | None
    ) -> dict[str, Any] | None:
        """Start its workers, if it is to have any."""
        value: dict[str, Any] = {
            "model": spec.model,
            "version": spec.version,
            "workers": desired.min_workers,
            "outcome": "registered",
        }
        if desired.max_workers:
            call = None if caller is None else WaitingCall(caller, value, desired)
            self._engine.scale(
                spec.key,
                desired.min_workers,
                desired.max_workers,
                self._clock.now(),
                call=call,
                wait_s=spec.startup_timeout_s + SETTLE_GRACE_S,
                is_registration=call is not None,
                groups=_groups_of(spec, desired),
            )
            value["outcome"] = "scheduled"
        return value if caller is None else None

    def drop(self, desired: DesiredVersion) -> bool:
        """A registration failed.  False when it had been made durable before."""
        if self._unsettled.get(desired.key) is not desired:
            return False
        del self._unsettled[desired.key]
        return True

    async def take_back(self, desired: DesiredVersion) -> None:
        """A registration failed that had been made durable before.  Raises StateNotWritten."""
        key = desired.key
        async with self._journal.changing() as state:
            if _is_same(state.versions.get(key), desired) and not self._engine.is_stopping:
                await self._journal.write(state.unregistering(key))
                self._follow_default(state, key.model)

    async def keep(self, desired: DesiredVersion) -> None:
        """A synchronous registration succeeded.

        Raises:
            StateNotWritten: It was taken back.
        """
        key = desired.key
        async with self._journal.changing() as state:
            if self._unsettled.get(key) is not desired:
                return
            try:
                await self._settle(state, key)
            except StateNotWritten:
                del self._unsettled[key]
                self.withdraw(key)
                raise

    async def settle(self, state: DesiredState, key: VersionKey) -> None:
        """Make a version durable before something durable is said of it; inside `changing`."""
        if key in self._unsettled:
            await self._settle(state, key)

    async def _settle(self, state: DesiredState, key: VersionKey) -> None:
        edits: list[Edit] = state.registering(self._unsettled[key])
        with suppress(StokerError):
            edits.append(PutDefault(key.model, self._engine.registry.default_version(key.model)))
        await self._journal.write(edits)
        del self._unsettled[key]

    def forget(self, key: VersionKey) -> None:
        """It was unregistered."""
        self._unsettled.pop(key, None)
        self._absent.pop(key, None)

    def release(self, spec: VersionSpec) -> None:
        """A version is gone with all its workers: its archive is not needed any more."""
        if name := spec.loading.get("adapters_name"):
            remove_adapters(name)
        archive = self._held.pop(spec, None)
        if archive is not None:
            self._archives.release(archive)

    # -- changes of a version that is served ----------------------------------

    def tuning(
        self,
        state: DesiredState,
        key: VersionKey,
        arguments: Arguments,
        groups: tuple[Group, ...] = (),
    ) -> list[Edit]:
        """What a call says of batches, idle workers and devices, as edits of what was asked for."""
        known = state.versions.get(key)
        if known is None:
            return []
        asked = {**known.asked, **arguments.stated(TUNED_ARGUMENTS)}
        asked.pop(GROUP_BOUNDS, None)
        if groups:
            asked[GROUP_BOUNDS] = to_text(groups)
        return [] if asked == known.asked else [PutVersion(replace(known, asked=asked))]

    def tuned(self, served: Served, arguments: Arguments) -> tuple[BatchPolicy, float, int | None]:
        """How batches are to be formed, how long workers may idle, and how many use a GPU.

        Raises:
            InvalidParameter: It cannot be so.
        """
        batch = served.spec.batch
        delay_s, idle_s = arguments.seconds("max_batch_delay_s"), arguments.seconds("max_idle_s")
        policy = BatchPolicy(
            check_batch_size(arguments.optional("batch_size", int) or batch.max_size),
            batch.delay_s if delay_s is None else delay_s,
        )
        number_gpu = arguments.optional("number_gpu", int)
        return (
            policy,
            served.spec.max_idle_s if idle_s is None else idle_s,
            served.spec.number_gpu if number_gpu is None else number_gpu,
        )

    # -- versions without their archives --------------------------------------

    def is_absent(self, key: VersionKey) -> bool:
        return key in self._absent

    def serve_absent(self, desired: DesiredVersion, failure: str) -> None:
        """Serve what there is of a version: its name, and why it cannot run."""
        key = desired.key
        if key not in self._absent:
            self._engine.register(self._spec_of_absent(desired))
            self._absent[key] = desired
        reason = Failure(failure, failure)
        self._engine.fail(key, reason, desired.min_workers, desired.max_workers)

    def _spec_of_absent(self, desired: DesiredVersion) -> VersionSpec:
        asked = Arguments(dict(desired.asked))
        archive = ResolvedArchive(
            model=desired.model,
            version=desired.version,
            handler=asked.optional("handler", str) or "",
            runtime=asked.optional("runtime", str) or DEFAULT_RUNTIME,
            url=asked.optional("url", str) or "",
        )
        is_startup = desired.item is not None
        try:
            return self.spec(archive, asked, is_startup=is_startup)
        except StokerError:  # what was allowed once is not any more; that may be the failure
            return self.spec(archive, Arguments({}), is_startup=is_startup)

    async def bring_back(self, key: VersionKey) -> VersionSpec | None:
        """Try once more to get a version's archive; None when it is not wanted any more.

        Raises:
            StokerError: It is as it was.
        """
        desired = self._absent[key]
        archive = await self._archives.obtain(self.request_of(desired))
        spec: VersionSpec | None = None
        try:
            async with self._journal.changing() as state:
                if self._absent.get(key) is not desired:
                    return None
                spec = self.spec(
                    archive,
                    Arguments(dict(desired.asked)),
                    is_startup=desired.item is not None,
                )
                if archive.content_hash != desired.content_hash:
                    known = state.versions.get(key, desired)
                    fresh = replace(known, content_hash=archive.content_hash)
                    await self._journal.write(state.registering(fresh))
                self._engine.replace(spec)
                self._held[spec] = archive
                del self._absent[key]
                return spec
        finally:
            self._release_unless_held(spec, archive)

    def request_of(self, desired: DesiredVersion) -> ArchiveRequest:
        """How to get the archive of a version that was registered before."""
        asked = Arguments(dict(desired.asked))
        return ArchiveRequest(
            url=asked.optional("url", str),
            model=desired.model,
            version=desired.version,
            handler=asked.optional("handler", str),
            runtime=asked.optional("runtime", str),
            s3_sse_kms=asked.flag("s3_sse_kms"),
            default_handler=self._settings.default_service_handler,
            engine=asked.optional("engine", str),
            takes_store=desired.item is not None,
            known_hash=desired.content_hash,
        )

    # -- into the engine ------------------------------------------------------

    def spec(
        self, archive: ResolvedArchive, arguments: Arguments, *, is_startup: bool
    ) -> VersionSpec:
        """Raises what `build_spec` raises."""
        for warning in archive.warnings:
            log.warning("archive has a flaw", model=archive.model, flaw=warning)
        return build_spec(archive, arguments, self._settings, self._places, is_startup, self._means)

    def serve(self, spec: VersionSpec, archive: ResolvedArchive) -> None:
        """Raises VersionExists, ShuttingDown."""
        self._engine.register(spec)
        self._held[spec] = archive
        if spec.is_loaded_at_startup and spec.model not in self.loaded_at_start:
            self.loaded_at_start.append(spec.model)

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
            spec = self.spec(archive, asked, is_startup=desired.item is not None)
            self.serve(spec, archive)
        finally:
            self._release_unless_held(spec, archive)
        if not is_written:
            self._unsettled[spec.key] = desired
        self.staff(spec, desired)

    def staff(self, spec: VersionSpec, desired: DesiredVersion) -> None:
        with suppress(ShuttingDown):
            self._staff(spec, desired, None)

    def withdraw(self, key: VersionKey) -> None:
        with suppress(StokerError):
            self._engine.withdraw(key, self._clock.now())

    def make_default(self, key: VersionKey) -> None:
        with suppress(StokerError):
            self._engine.registry.set_default(*key)

    def _release_unless_held(self, spec: VersionSpec | None, archive: ResolvedArchive) -> None:
        if spec is None or self._held.get(spec) is not archive:
            self._archives.release(archive)

    def _follow_default(self, state: DesiredState, model: str) -> None:
        if model in state.defaults:
            self.make_default(VersionKey(model, state.defaults[model]))


def _groups_of(spec: VersionSpec, desired: DesiredVersion) -> tuple[Group, ...]:
    """The bounds of each device; () where nothing else than the sum was said since."""
    groups = from_text(str(desired.asked.get(GROUP_BOUNDS, "")), spec.group_devices)
    sums = (sum(g.min_workers for g in groups), sum(g.max_workers for g in groups))
    return groups if sums == (desired.min_workers, desired.max_workers) else ()


def desired_version(
    archive: ResolvedArchive,
    asked: dict[str, Plain],
    counts: tuple[int, int],
    item: str | None = None,
    configured_workers: str = "",
) -> DesiredVersion:
    return DesiredVersion(
        model=archive.model,
        version=archive.version,
        min_workers=counts[0],
        max_workers=counts[1],
        asked=asked,
        content_hash=archive.content_hash,
        item=item,
        configured_workers=configured_workers,
        registered_at=time.time(),
    )


def kept_arguments(arguments: Arguments) -> dict[str, Plain]:
    """What a register call states of its version.  Raises InvalidParameter."""
    asked = arguments.stated(KEPT_ARGUMENTS)
    if len(json.dumps(asked)) > MAX_KEPT_CHARACTERS:
        raise InvalidParameter("The parameters are too long.", parameter="url")
    return asked


def _is_same(known: DesiredVersion | None, desired: DesiredVersion) -> bool:
    """The same registration, whatever was said of it since."""
    return known is not None and known.registered_at == desired.registered_at
