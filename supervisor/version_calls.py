"""Calls that change versions which are registered: scale, unregister, set the default.

Each is durable first, then done; see `control.py` for what the verbs take and
answer.  A name may mean a workflow (`named_versions.py`): scaling one scales
its nodes' models, and only unregistering it takes those away.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from stoker.clock import Clock
from stoker.errors import ShuttingDown, StokerError
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.absent_versions import AbsentVersions
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.calls import Caller, Value, WaitingCall
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.group_descriptions import first_devices
from stoker.supervisor.journal import Journal
from stoker.supervisor.kept_arguments import retuned
from stoker.supervisor.named_versions import (
    check_is_no_node,
    find_version,
    means_workflow,
    named_keys,
)
from stoker.supervisor.registrations import SETTLE_GRACE_S
from stoker.supervisor.served import Served
from stoker.supervisor.specs import check_batch_size
from stoker.supervisor.unsettled_versions import UnsettledVersions
from stoker.supervisor.versions import VersionKey
from stoker.supervisor.worker_bounds import WorkerBounds, wanted_bounds
from stoker.supervisor.workflow_registrations import WorkflowRegistrations

log = get_logger("control")

#: A synchronous call waits for loading; draining may take longer.
MAX_WAIT_S: Final = 3600.0


class VersionCalls:
    """Carries them out; None for an answer means that it comes later."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        places: DevicePlaces,
        clock: Clock,
        journal: Journal,
        unsettled: UnsettledVersions,
        absent: AbsentVersions,
        workflows: WorkflowRegistrations,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._places = places
        self._clock = clock
        self._journal = journal
        self._unsettled = unsettled
        self._absent = absent
        self._workflows = workflows

    # -- scale ----------------------------------------------------------------

    async def scale(self, arguments: Arguments, caller: Caller) -> Value | None:
        """One version, all of a model, or all models of a workflow."""
        keys = named_keys(self._engine, arguments)
        is_synchronous = arguments.flag("synchronous")
        call = WaitingCall(caller, parts=len(keys)) if is_synchronous else None
        value: Value | None = None
        for key in keys:
            value = await self._scale(key, arguments, call)
        return value

    async def _scale(
        self, key: VersionKey, arguments: Arguments, call: WaitingCall | None
    ) -> Value | None:
        self._bounds(key, arguments)
        drain_s = arguments.seconds("drain_timeout_s")
        if key in self._absent:
            await self._absent.bring_back(key)
        async with self._journal.changing() as state:
            served = find_version(self._engine, *key)
            await self._unsettled.settle(state, key)
            least, most, groups = self._bounds(key, arguments)
            tuned = _tuned(served, arguments)
            await self._journal.write(retuned(state, key, arguments, groups))
            await self._journal.write(state.scaling(key, least, most))
            value = {"min_workers": least, "max_workers": most, "outcome": "scheduled"}
            if call is not None:
                call.value = value
            served.tune(*tuned)
            wait_s = served.spec.startup_timeout_s + SETTLE_GRACE_S
            with suppress(ShuttingDown):  # it is kept, and that counts
                self._engine.versions.scale(
                    key,
                    least,
                    most,
                    self._clock.now(),
                    drain_s=drain_s,
                    call=call,
                    wait_s=MAX_WAIT_S if drain_s is None else min(MAX_WAIT_S, wait_s + drain_s),
                    groups=groups,
                )
                return None if call is not None else value
            return value

    def _bounds(self, key: VersionKey, arguments: Arguments) -> WorkerBounds:
        crew = find_version(self._engine, *key).crew
        devices = crew.spec.group_devices or first_devices(crew.spec, self._places)
        return wanted_bounds(crew, devices, arguments)

    # -- unregister -----------------------------------------------------------

    async def unregister(self, arguments: Arguments, caller: Caller) -> Value | None:
        """Answered when the last worker of what goes is gone."""
        model, version = arguments.required("model", str), arguments.optional("version", str)
        if means_workflow(self._engine, model, arguments):
            return await self._unregister_workflow(model, version)
        if arguments.flag("all") and version is None:
            return await self._unregister_all(model, caller)
        may_be_default = arguments.flag("may_be_default")
        async with self._journal.changing() as state:
            find_version(self._engine, model, version)
            spec = self._engine.registry.check_removable(
                model, version, may_be_default=may_be_default
            ).spec
            key = spec.key
            check_is_no_node(spec)
            await self._journal.write(state.unregistering(key))
            self._forget(key)
            value = {"model": key.model, "version": key.version}
            if self._engine.is_stopping:
                return value
            self._engine.versions.unregister(
                key.model,
                key.version,
                self._clock.now(),
                WaitingCall(caller, value),
                self._settings.unregister_model_timeout,
                may_be_default=may_be_default,
            )
        return None

    async def _unregister_all(self, model: str, caller: Caller) -> Value | None:
        """The model with all its versions."""
        async with self._journal.changing() as state:
            default = find_version(self._engine, model, None)
            check_is_no_node(default.spec)
            versions = self._engine.registry.all_versions(model)
            await self._journal.write(state.unregistering_all(model))
            # The default may go when it is the last one.
            ordered = [served for served in versions if served is not default] + [default]
            value = {"model": model, "version": None}
            call = WaitingCall(caller, value, parts=len(ordered))
            for served in ordered:
                self._forget(served.spec.key)
                if not self._engine.is_stopping:
                    self._engine.versions.unregister(
                        *served.spec.key,
                        self._clock.now(),
                        call,
                        self._settings.unregister_model_timeout,
                    )
            return value if self._engine.is_stopping else None

    def _forget(self, key: VersionKey) -> None:
        self._unsettled.forget(key)
        self._absent.forget(key)

    async def unregister_workflow(self, arguments: Arguments, caller: Caller) -> Value:
        name, version = arguments.required("workflow", str), arguments.optional("version", str)
        return await self._unregister_workflow(name, version)

    async def _unregister_workflow(self, name: str, version: str | None) -> Value:
        if version is not None:
            return await self._workflows.unregister(name, version)
        value: Value = {}
        for workflow in self._engine.workflows.all_versions(name):
            value = await self._workflows.unregister(*workflow.key)
        return value

    # -- set the default ------------------------------------------------------

    async def set_default(self, arguments: Arguments, caller: Caller) -> Value:
        key = VersionKey(arguments.required("model", str), arguments.required("version", str))
        async with self._journal.changing() as state:
            find_version(self._engine, *key)
            await self._unsettled.settle(state, key)
            if key in state.versions:
                await self._journal.write(state.making_default(key))
            with suppress(StokerError):  # it failed to load meanwhile
                self._engine.registry.set_default(*key)
        log.info("default version set", model=key.model, version=key.version)
        return {"model": key.model, "version": key.version}


def _tuned(served: Served, arguments: Arguments) -> tuple[BatchPolicy, float, int | None]:
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
