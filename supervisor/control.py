"""The management verbs: what a `Call` may ask, and what it is answered.

    register     url? model? handler? runtime? batch_size? max_batch_delay_s? initial_workers?
                 response_timeout_s? startup_timeout_s? version? synchronous s3_sse_kms
                 min_workers? max_workers? per_device checks_memory required_memory_mb?
                 reserved_memory_mb? queue_wait_target_s? queue_capacity? max_idle_s? devices?
                 engine? is_unversioned takes_free_name answers_first
                 -> model version workers outcome (registered | scheduled | ready | partial)
    scale        model version? min_workers? max_workers? synchronous drain_timeout_s?
                 per_device devices? all batch_size? max_batch_delay_s? max_idle_s?
                 -> outcome (scheduled | ready | partial) min_workers
    describe     model version? all           -> versions[record]      (`descriptions.py`)
    unregister   model version? all may_be_default -> model version
    set_default  model version                -> model version
    list         limit offset all_versions    -> total models[model version url versions[state]]
    health       all_versions                 -> is_healthy has_ready_worker models{name: bool}
                                                 versions[state]
    ready        model? version?              -> is_ready
    startup_models -                          -> models[name]
    statistics   report?                      -> jobs versions families    (`metrics.py`)
    report       report                       -> -                         (`frontend_reports.py`)
    snapshot     keep                         -> name path? text? left_out (`snapshots.py`)
    register_workflow    url? workflow? response_timeout_s? startup_timeout_s? s3_sse_kms
                         notation? version? template? parameters{} in_background
                                              -> workflow version outcome (ready | scheduled)
    unregister_workflow  workflow version?    -> workflow version
    describe_workflow    workflow version? models
                                              -> versions[record] (`workflow_descriptions.py`)
    list_workflows       limit offset         -> total workflows[workflow version url]

`?` may be None: for the numbers of `scale` that is "as they are".  `all` and
`all_versions` ask for every version, of which a state says model, version, url,
status, is_pending and is_unversioned.  Verbs know no dialect: texts, defaults and units are the
listener's.  What only asks is answered at once.  What changes something is
durable first (`journal.py`), then done, then answered; fetching and unpacking
run in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from stoker.archives.devices import parse_devices
from stoker.archives.resolve import ArchiveRequest
from stoker.clock import Clock
from stoker.errors import (
    Internal,
    InvalidParameter,
    LoadFailed,
    ShuttingDown,
    StokerError,
    TooManyRequests,
    VersionExists,
)
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.calls import AwaitedCall, Caller, WaitingCall
from stoker.supervisor.crews import Crew
from stoker.supervisor.descriptions import Describer, is_pending, status_of
from stoker.supervisor.desired import DesiredVersion
from stoker.supervisor.device_groups import Group, changed, even_groups
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.group_descriptions import first_devices
from stoker.supervisor.host_fencing import HostFencing
from stoker.supervisor.journal import Journal
from stoker.supervisor.metrics import Metrics
from stoker.supervisor.registrations import SETTLE_GRACE_S, Registrations
from stoker.supervisor.restoring import Restoring
from stoker.supervisor.served import Served
from stoker.supervisor.snapshots import Snapshots
from stoker.supervisor.versions import VersionKey, VersionSpec
from stoker.supervisor.worker_output import log_name
from stoker.supervisor.workflow_descriptions import describe_workflow
from stoker.supervisor.workflow_registrations import DJL, OWNER, WorkflowRegistrations
from stoker.supervisor.workflows import Workflow

log = get_logger("control")

#: Registrations under way at once; each may hold a thread for a download.
MAX_REGISTRATIONS: Final = 64
#: Changes of any kind that may be under way.
MAX_CHANGES: Final = 512
#: A synchronous call waits for loading; draining may take longer.
MAX_WAIT_S: Final = 3600.0

Value = dict[str, Any]


class Control:
    """Carries out management verbs on the engine.

    Args:
        answer: Sends a result to a caller.
        end_turn: Carries out what the engine decided; called after every verb
            that ran outside a turn of the loop.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        places: DevicePlaces,
        clock: Clock,
        journal: Journal,
        metrics: Metrics,
        answer: Callable[[Caller, Value | StokerError], None],
        end_turn: Callable[[], None],
        fencing: HostFencing,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._places = places
        self._clock = clock
        self._journal = journal
        self._answer = answer
        self._end_turn = end_turn
        self._archives = ArchiveSource(settings, fencing.user)
        self._registrations = Registrations(
            settings, engine, places, clock, self._archives, journal, fencing.means
        )
        self._workflows = WorkflowRegistrations(
            settings,
            engine,
            clock,
            self._archives,
            self._registrations,
            journal,
            end_turn,
            self._begin,
        )
        self._describer = Describer(engine, places, settings, self._registrations.loaded_at_start)
        self._snapshots = Snapshots(settings, engine, journal, self._begin)
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self._registering = 0
        self._questions: Final[dict[str, Callable[[Arguments], Value]]] = {
            "describe": self._describe,
            "list": self._list,
            "health": self._health,
            "ready": self._ready,
            "startup_models": self._startup_models,
            "statistics": self._statistics,
            "report": self._report,
            "describe_workflow": self._describe_workflow,
            "list_workflows": self._list_workflows,
        }
        #: None when the answer comes later.
        self._changes: Final[
            dict[str, Callable[[Arguments, Caller], Coroutine[Any, Any, Value | None]]]
        ] = {
            "register": self._register,
            "scale": self._scale,
            "unregister": self._unregister,
            "set_default": self._set_default,
            "snapshot": self._snapshot,
            "register_workflow": self._register_workflow,
            "unregister_workflow": self._unregister_workflow,
        }

    # -- in and out -----------------------------------------------------------

    def call(self, caller: Caller, verb: str, arguments: dict[str, Any]) -> None:
        """Answer a call now, or see to it that it is answered later."""
        try:
            if (question := self._questions.get(verb)) is not None:
                self._answer(caller, question(Arguments(arguments)))
            elif (change := self._changes.get(verb)) is not None:
                if len(self._tasks) >= MAX_CHANGES:
                    raise TooManyRequests("Too many changes are under way; try again later.")
                self._begin(self._carry_out(verb, change(Arguments(arguments), caller), caller))
            else:
                raise InvalidParameter(f"There is no verb {verb!r}.", parameter="verb")
        except StokerError as error:
            self._answer(caller, error)
        except Exception:
            log.exception("verb failed", verb=verb)
            self._answer(caller, Internal("The supervisor could not do that; see its log."))

    async def _carry_out(
        self, verb: str, change: Coroutine[Any, Any, Value | None], caller: Caller
    ) -> None:
        outcome: Value | StokerError | None
        try:
            outcome = await change
        except StokerError as error:
            outcome = error
        except Exception:
            log.exception("verb failed", verb=verb)
            outcome = Internal("The supervisor could not do that; see its log.")
        if outcome is not None:
            self._answer(caller, outcome)
            if not isinstance(outcome, StokerError) and verb != "snapshot":
                self._snapshots.note_change()
        self._end_turn()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(_guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def resolve(self, call: WaitingCall | AwaitedCall, outcome: Value | StokerError) -> None:
        """The engine says how a waiting call ended, or one of its parts."""
        if isinstance(call, AwaitedCall):
            call.resolve(outcome)
            return
        call.parts -= 1
        if isinstance(outcome, StokerError):
            call.error = call.error or outcome
        if call.parts > 0:
            return
        outcome = call.error or outcome
        registers = call.registers
        if registers is None or (
            isinstance(outcome, StokerError) and self._registrations.drop(registers)
        ):
            self._answer_waiting(call, outcome)
        else:
            self._begin(self._conclude(call, outcome, registers))

    async def _conclude(
        self, call: WaitingCall, outcome: Value | StokerError, registers: DesiredVersion
    ) -> None:
        """A synchronous registration has ended, and something must be written."""
        try:
            if isinstance(outcome, StokerError):
                await self._registrations.take_back(registers)
            else:
                await self._registrations.keep(registers)
        except StokerError as error:
            outcome = error
        except Exception:
            log.exception("registration failed", model=registers.model)
            outcome = Internal("The registration failed; see the supervisor's log.")
        self._answer_waiting(call, outcome)
        self._end_turn()

    def _answer_waiting(self, call: WaitingCall, outcome: Value | StokerError) -> None:
        if isinstance(outcome, LoadFailed):
            details = outcome.details
            details["log"] = log_name(details["model"], details["version"])
        if isinstance(outcome, StokerError):
            self._answer(call.caller, outcome)
        else:
            self._answer(call.caller, {**call.value, **outcome})
            self._snapshots.note_change()

    def release(self, spec: VersionSpec) -> None:
        """A version is gone with all its workers."""
        self._registrations.release(spec)

    async def start(
        self, *, goes_on: bool, keep_aside: Callable[[str], Path], progress: Callable[[], None]
    ) -> None:
        """Serve what is stored and what the configuration names.

        Args:
            progress: Called after every version.

        Raises:
            SettingsError: What the configuration names cannot be.
        """

        def go_on() -> None:
            self._end_turn()
            progress()

        await Restoring(
            self._settings,
            self._places,
            self._archives,
            self._journal,
            self._registrations,
            goes_on=goes_on,
            keep_aside=keep_aside,
            begin=self._begin,
            go_on=go_on,
        ).run()
        await self._workflows.restore(list(self._journal.state.workflows.values()))
        go_on()
        self._snapshots.note_change("startup")

    def stop(self) -> None:
        """The server is about to stop; nothing is taken apart yet."""
        self._snapshots.stop()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._snapshots.close()
        self._archives.close()

    # -- changes --------------------------------------------------------------

    async def _register(self, arguments: Arguments, caller: Caller) -> Value | None:
        if self._registering >= MAX_REGISTRATIONS:
            raise TooManyRequests("Too many registrations are under way; try again later.")
        if await self._means_definition(arguments):
            return await self._register_definition(arguments, caller)
        self._check_is_no_workflow(arguments)
        request = ArchiveRequest(
            url=arguments.optional("url", str),
            model=arguments.optional("model", str),
            handler=arguments.optional("handler", str),
            runtime=arguments.optional("runtime", str),
            version=arguments.optional("version", str),
            s3_sse_kms=arguments.flag("s3_sse_kms"),
            default_handler=self._settings.default_service_handler,
            engine=arguments.optional("engine", str),
        )
        if arguments.flag("answers_first") and not arguments.flag("synchronous"):
            return await self._announce(request, arguments)
        self._registering += 1
        try:
            return await self._registrations.register(request, arguments, caller)
        except StokerError as error:
            log.warning(
                "registration refused",
                url=request.url,
                reason=error.message,
                why=error.details.get("reason"),
            )
            raise
        finally:
            self._registering -= 1

    def _check_is_no_workflow(self, arguments: Arguments) -> None:
        """Raises VersionExists: Where models are workflows, both have one set of names."""
        model = arguments.optional("model", str)
        if arguments.flag("answers_first") and model in self._engine.workflows.names():
            raise VersionExists(
                f"Workflow {model} is already registered.",
                model=model,
                version=arguments.optional("version", str),
                is_unversioned=True,
            )

    async def _means_definition(self, arguments: Arguments) -> bool:
        """Is it a workflow's definition that is to be registered?"""
        if arguments.optional("template", str):
            return True
        url = arguments.optional("url", str) or ""
        return arguments.flag("answers_first") and await self._archives.is_definition(url)

    async def _register_definition(self, arguments: Arguments, caller: Caller) -> Value:
        asked = {
            **arguments.stated(("url", "workflow", "template")),
            "notation": DJL,
            "parameters": arguments.mapping("parameters"),
            "in_background": not arguments.flag("synchronous"),
        }
        if not arguments.flag("is_unversioned"):
            asked |= arguments.stated(("version",))
        value = await self._register_workflow(Arguments(asked), caller)
        return {**value, "model": value["workflow"], "workers": 0}

    async def _announce(self, request: ArchiveRequest, arguments: Arguments) -> Value:
        """A registration that is answered before anything is fetched."""
        desired = await self._registrations.announce(request, arguments)
        self._begin(self._follow(desired, arguments))
        return {
            "model": desired.model,
            "version": desired.version,
            "workers": 0,
            "outcome": "scheduled",
        }

    async def _follow(self, desired: DesiredVersion, arguments: Arguments) -> None:
        self._registering += 1
        try:
            await self._registrations.follow(desired, arguments)
        finally:
            self._registering -= 1
            self._end_turn()

    def _chosen(self, arguments: Arguments) -> list[VersionKey]:
        """The version that is meant, or with `all` every one.

        Raises ModelNotFound, VersionNotFound, ShuttingDown.
        """
        model, version = arguments.required("model", str), arguments.optional("version", str)
        if self._is_workflow(model, arguments):
            return self._node_keys(model, version)
        if arguments.flag("all") and version is None:
            self._find(model, None)
            return [served.spec.key for served in self._engine.registry.all_versions(model)]
        return [self._find(model, version).spec.key]

    def _node_keys(self, name: str, version: str | None) -> list[VersionKey]:
        """The models that a workflow's nodes are, each once.  Raises WorkflowNotFound."""
        known = self._engine.workflows
        chosen = known.all_versions(name) if version is None else [known.find(name, version)]
        nodes = [node for workflow in chosen for node in workflow.graph.nodes]
        models = dict.fromkeys(node.model for node in nodes)
        return [self._find(model, None).spec.key for model in models]

    async def _scale(self, arguments: Arguments, caller: Caller) -> Value | None:
        keys = self._chosen(arguments)
        is_synchronous = arguments.flag("synchronous")
        call = WaitingCall(caller, parts=len(keys)) if is_synchronous else None
        value: Value | None = None
        for key in keys:
            value = await self._scale_one(key, arguments, call)
        return value

    async def _scale_one(
        self, key: VersionKey, arguments: Arguments, call: WaitingCall | None
    ) -> Value | None:
        """None when the answer comes later."""
        self._bounds(key, arguments)
        drain_s = arguments.seconds("drain_timeout_s")
        if self._registrations.is_absent(key):
            await self._registrations.bring_back(key)
        async with self._journal.changing() as state:
            served = self._find(*key)
            await self._registrations.settle(state, key)
            least, most, groups = self._bounds(key, arguments)
            tuned = self._registrations.tuned(served, arguments)
            await self._journal.write(self._registrations.tuning(state, key, arguments, groups))
            await self._journal.write(state.scaling(key, least, most))
            value = {"min_workers": least, "max_workers": most, "outcome": "scheduled"}
            if call is not None:
                call.value = value
            served.tune(*tuned)
            wait_s = served.spec.startup_timeout_s + SETTLE_GRACE_S
            with suppress(ShuttingDown):  # it is kept, and that counts
                self._engine.scale(
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

    def _bounds(self, key: VersionKey, arguments: Arguments) -> tuple[int, int, tuple[Group, ...]]:
        """What a scale call wants, in all and, where it counts by device, of each.

        Raises:
            InvalidParameter: Impossible numbers, or a device that the version does not use.
        """
        least = arguments.optional("min_workers", int)
        most = arguments.optional("max_workers", int)
        crew = self._find(*key).crew
        devices = self._named_devices(crew, arguments)
        if not arguments.flag("per_device") or not crew.spec.group_devices:
            return (*self._check_bounds(key, least, most), ())
        groups = crew.groups
        if groups[0].device is None:
            groups = even_groups(crew.spec.group_devices, crew.min_workers, crew.max_workers)
        groups = changed(groups, devices, least, most)
        for group in groups:
            _check_range(group.min_workers, group.max_workers)
        low, high = sum(g.min_workers for g in groups), sum(g.max_workers for g in groups)
        return low, high, groups

    def _named_devices(self, crew: Crew, arguments: Arguments) -> tuple[int, ...]:
        """The devices that a call is about; () for all.  Raises InvalidParameter."""
        named = arguments.optional("devices", str)
        if named is None:
            return ()
        kind, ids = parse_devices(named)
        known = crew.spec.group_devices or first_devices(crew.spec, self._places)
        if kind not in (None, crew.spec.device_type) or not set(ids) <= set(known):
            raise InvalidParameter(
                "Parameter device names one that the model was not registered for.",
                parameter="device",
            )
        return ids

    def _check_bounds(
        self, key: VersionKey, least: int | None, most: int | None
    ) -> tuple[int, int]:
        """What is not named stays, but for the sake of the other.  Raises InvalidParameter."""
        crew = self._find(*key).crew
        if most is None:
            most = max(crew.max_workers, least or 0)
        if least is None:
            least = min(crew.min_workers, most)
        _check_range(least, most)
        return least, most

    async def _unregister(self, arguments: Arguments, caller: Caller) -> Value | None:
        model, version = arguments.required("model", str), arguments.optional("version", str)
        if self._is_workflow(model, arguments):
            return await self._unregister_workflow(
                Arguments({"workflow": model, "version": version}), caller
            )
        if arguments.flag("all") and version is None:
            return await self._unregister_all(model, caller)
        may_be_default = arguments.flag("may_be_default")
        async with self._journal.changing() as state:
            self._find(model, version)
            spec = self._engine.registry.check_removable(
                model, version, may_be_default=may_be_default
            ).spec
            key = spec.key
            _check_is_no_node(spec)
            await self._journal.write(state.unregistering(key))
            self._registrations.forget(key)
            value = {"model": key.model, "version": key.version}
            if self._engine.is_stopping:
                return value
            self._engine.unregister(
                key.model,
                key.version,
                self._clock.now(),
                WaitingCall(caller, value),
                self._settings.unregister_model_timeout,
                may_be_default=may_be_default,
            )
        return None

    async def _unregister_all(self, model: str, caller: Caller) -> Value | None:
        """The model with all its versions; answered when the last worker of any is gone."""
        async with self._journal.changing() as state:
            default = self._find(model, None)
            _check_is_no_node(default.spec)
            versions = self._engine.registry.all_versions(model)
            await self._journal.write(state.unregistering_all(model))
            # The default may go when it is the last one.
            ordered = [served for served in versions if served is not default] + [default]
            value = {"model": model, "version": None}
            call = WaitingCall(caller, value, parts=len(ordered))
            for served in ordered:
                self._registrations.forget(served.spec.key)
                if not self._engine.is_stopping:
                    self._engine.unregister(
                        *served.spec.key,
                        self._clock.now(),
                        call,
                        self._settings.unregister_model_timeout,
                    )
            return value if self._engine.is_stopping else None

    async def _set_default(self, arguments: Arguments, caller: Caller) -> Value:
        key = VersionKey(arguments.required("model", str), arguments.required("version", str))
        async with self._journal.changing() as state:
            self._find(*key)
            await self._registrations.settle(state, key)
            if key in state.versions:
                await self._journal.write(state.making_default(key))
            self._registrations.make_default(key)
        log.info("default version set", model=key.model, version=key.version)
        return {"model": key.model, "version": key.version}

    def _find(self, model: str, version: str | None) -> Served:
        """Raises ModelNotFound, VersionNotFound, ShuttingDown."""
        if self._engine.is_stopping:
            raise ShuttingDown("The server is stopping.")
        return self._engine.registry.find(model, version)

    async def _snapshot(self, arguments: Arguments, caller: Caller) -> Value:
        snapshot = self._snapshots.describe("snapshot")
        value: Value = {"name": snapshot.name, "left_out": snapshot.left_out}
        if arguments.flag("keep"):
            return {**value, "path": str(await self._snapshots.write(snapshot))}
        return {**value, "text": snapshot.text.encode()}

    async def _register_workflow(self, arguments: Arguments, caller: Caller) -> Value:
        if self._registering >= MAX_REGISTRATIONS:
            raise TooManyRequests("Too many registrations are under way; try again later.")
        self._registering += 1
        try:
            return await self._workflows.register(arguments)
        except StokerError as error:
            url = arguments.optional("url", str)
            log.warning("workflow refused", url=url, reason=error.message)
            raise
        finally:
            self._registering -= 1

    async def _unregister_workflow(self, arguments: Arguments, caller: Caller) -> Value:
        name, version = arguments.required("workflow", str), arguments.optional("version", str)
        if version is not None:
            return await self._workflows.unregister(name, version)
        value: Value = {}
        for workflow in self._engine.workflows.all_versions(name):
            value = await self._workflows.unregister(*workflow.key)
        return value

    # -- questions ------------------------------------------------------------

    def _describe_workflow(self, arguments: Arguments) -> Value:
        name, version = arguments.required("workflow", str), arguments.optional("version", str)
        workflows = self._engine.workflows
        found = workflows.all_versions(name) if version is None else [workflows.find(name, version)]
        return {"versions": [self._workflow(each, arguments) for each in found]}

    def _workflow(self, workflow: Workflow, arguments: Arguments) -> Value:
        """Args: arguments: With `models`, everything about its nodes' models as well."""
        record = describe_workflow(self._engine, workflow)
        if arguments.flag("models"):
            record["models"] = self._node_models(workflow)
        return record

    def _node_models(self, workflow: Workflow) -> list[Value]:
        registry = self._engine.registry
        nodes = {node.model: node for node in workflow.graph.nodes}
        known = [registry.find(node.model, node.version) for node in nodes.values()]
        labels = workflow.shown.get("labels", {})
        described = self._describer.describe(known, self._clock.now())
        return [{**each, "model": labels.get(each["model"], each["model"])} for each in described]

    def _list_workflows(self, arguments: Arguments) -> Value:
        limit, offset = arguments.required("limit", int), arguments.required("offset", int)
        workflows = self._engine.workflows
        names = workflows.names()
        shown = [workflows.find(name) for name in names[max(0, offset) :][: max(0, limit)]]
        return {
            "total": len(names),
            "workflows": [
                {"workflow": each.key.model, "version": each.key.version, "url": each.shown["url"]}
                for each in shown
            ],
        }

    def _workflow_states(self, name: str) -> list[Value]:
        """Its versions, as `_states` has those of models; each with its nodes' models."""
        found = []
        for workflow in self._engine.workflows.all_versions(name):
            labels = workflow.shown.get("labels", {})
            models = dict.fromkeys(node.model for node in workflow.graph.nodes)
            known = [self._engine.registry.find(model) for model in models]
            found.append(
                {
                    "model": name,
                    "version": workflow.key.version,
                    "is_unversioned": workflow.shown.get("is_unversioned", False),
                    "nodes": [
                        {**state, "model": f"{name}:{labels.get(state['model'], state['model'])}"}
                        for state in self._states(known)
                    ],
                }
            )
        return found

    def _is_workflow(self, name: str, arguments: Arguments) -> bool:
        """May a name that is no model's mean a workflow, and does it?"""
        return (
            arguments.flag("or_workflow")
            and name not in self._engine.registry.names()
            and name in self._engine.workflows.names()
        )

    def _describe(self, arguments: Arguments) -> Value:
        model = arguments.required("model", str)
        if self._is_workflow(model, arguments):
            asked = {**arguments.stated(("version",)), "workflow": model, "models": True}
            return {"workflows": self._describe_workflow(Arguments(asked))["versions"]}
        registry = self._engine.registry
        if arguments.flag("all"):
            versions = registry.all_versions(model)
        else:
            versions = [registry.find(model, arguments.optional("version", str))]
        return {"versions": self._describer.describe(versions, self._clock.now())}

    def _list(self, arguments: Arguments) -> Value:
        limit, offset = arguments.required("limit", int), arguments.required("offset", int)
        registry = self._engine.registry
        names = [name for name in registry.names() if not self._is_node(name)]
        flows = set(self._engine.workflows.names()) if arguments.flag("workflows") else set()
        names = sorted({*names, *flows})
        models: list[Value] = []
        for name in names[max(0, offset) :][: max(0, limit)]:
            if name in flows:
                models.append({"model": name, "versions": self._workflow_states(name)})
                continue
            spec = registry.find(name).spec
            model: Value = {"model": name, "version": spec.version, "url": spec.shown["url"]}
            if arguments.flag("all_versions"):
                model["versions"] = self._states(registry.all_versions(name))
            models.append(model)
        return {"total": len(names), "models": models}

    def _states(self, versions: Iterable[Served]) -> list[Value]:
        now = self._clock.now()
        return [
            {
                "model": served.spec.model,
                "version": served.spec.version,
                "url": served.spec.shown["url"],
                "status": status_of(served, now),
                "is_pending": is_pending(served),
                "is_unversioned": served.spec.shown["is_unversioned"],
            }
            for served in versions
        ]

    def _is_node(self, model: str) -> bool:
        """Is it there for a workflow alone?  Such models are not listed (4.4)."""
        return OWNER in self._engine.registry.find(model).spec.shown

    def _health(self, arguments: Arguments) -> Value:
        now = self._clock.now()
        registry = self._engine.registry
        models = {name: registry.find(name).crew.is_healthy(now) for name in registry.names()}
        value: Value = {
            "is_healthy": all(models.values()),
            "has_ready_worker": any(served.pool.workers for served in registry),
            "wanted_workers": sum(served.crew.min_workers for served in registry),
            "running_workers": sum(served.crew.running_count for served in registry),
            "models": models,
        }
        if arguments.flag("all_versions"):
            value["versions"] = self._states(registry)
        return value

    def _ready(self, arguments: Arguments) -> Value:
        """Of a version: does a worker take its jobs?  Of the server: would it take any?"""
        engine = self._engine
        model = arguments.optional("model", str)
        if model is not None:
            served = engine.registry.find(model, arguments.optional("version", str))
            # One that sleeps is woken by the first request, which nobody would send it else.
            takes = bool(served.pool.workers) or served.crew.is_asleep
            return {"is_ready": takes and not engine.is_stopping}
        is_loading = any(
            served.spec.is_loaded_at_startup and served.crew.is_loading
            for served in engine.registry
        )
        return {"is_ready": not (is_loading or engine.is_stopping)}

    def _startup_models(self, arguments: Arguments) -> Value:
        return {"models": self._registrations.loaded_at_start}

    def _statistics(self, arguments: Arguments) -> Value:
        now = self._clock.now()
        self._metrics.take_report(arguments.mapping("report"), now)
        return self._metrics.statistics(now)

    def _report(self, arguments: Arguments) -> Value:
        self._metrics.take_report(arguments.mapping("report"), self._clock.now())
        return {}


def _check_range(least: int, most: int) -> None:
    if least < 0 or most < least:
        raise InvalidParameter("max_worker cannot be less than min_worker.", parameter="max_worker")


async def _guarded(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        log.exception("task failed")


def _check_is_no_node(spec: VersionSpec) -> None:
    """Raises InvalidParameter: The model is there for a workflow."""
    if owner := spec.shown.get(OWNER):
        raise InvalidParameter(
            f"Model {spec.model} belongs to workflow {owner}; unregister that.",
            parameter="model_name",
        )
