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
listener's.  What only asks is answered at once (`questions.py`).  What changes
something (`register_calls.py`, `version_calls.py`) is durable first
(`journal.py`), then done, then answered; fetching and unpacking run in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from stoker.clock import Clock
from stoker.errors import Internal, InvalidParameter, LoadFailed, StokerError, TooManyRequests
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.absent_versions import AbsentVersions
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.calls import AwaitedCall, Caller, Value, WaitingCall
from stoker.supervisor.descriptions import Describer
from stoker.supervisor.desired import DesiredVersion
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.host_fencing import HostFencing
from stoker.supervisor.journal import Journal
from stoker.supervisor.metrics import Metrics
from stoker.supervisor.questions import Questions
from stoker.supervisor.register_calls import RegisterCalls
from stoker.supervisor.registrations import Registrations
from stoker.supervisor.restoring import Restoring
from stoker.supervisor.snapshots import Snapshots
from stoker.supervisor.unsettled_versions import UnsettledVersions
from stoker.supervisor.version_archives import VersionArchives
from stoker.supervisor.version_calls import VersionCalls
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.worker_output import log_name
from stoker.supervisor.workflow_registrations import WorkflowRegistrations

log = get_logger("control")

#: Changes of any kind that may be under way.
MAX_CHANGES: Final = 512
#: A verb that changes something; None when the answer comes later.
Change = Callable[[Arguments, Caller], Coroutine[Any, Any, Value | None]]


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
        self._tasks: set[asyncio.Task[None]] = set()
        self._source = source = ArchiveSource(settings, fencing.user)
        self._archives = archives = VersionArchives(settings, engine, places, source, fencing.means)
        self._unsettled = unsettled = UnsettledVersions(engine, clock, journal)
        self._absent = absent = AbsentVersions(settings, engine, source, journal, archives)
        self._registrations = registrations = Registrations(
            settings, engine, places, clock, source, journal, archives, unsettled, absent
        )
        self._workflows = workflows = WorkflowRegistrations(
            settings, engine, clock, source, archives, journal, end_turn, self._begin
        )
        self._snapshots = Snapshots(settings, engine, journal, self._begin)
        describer = Describer(engine, places, settings, archives.loaded_at_start)
        questions = Questions(engine, clock, describer, metrics, archives.loaded_at_start)
        register_calls = RegisterCalls(
            settings, engine, source, registrations, workflows, self._begin, end_turn
        )
        version_calls = VersionCalls(
            settings, engine, places, clock, journal, unsettled, absent, workflows
        )
        self._questions: Final[dict[str, Callable[[Arguments], Value]]] = {
            "describe": questions.describe,
            "list": questions.list_models,
            "health": questions.health,
            "ready": questions.ready,
            "startup_models": questions.startup_models,
            "statistics": questions.statistics,
            "report": questions.report,
            "describe_workflow": questions.describe_workflow,
            "list_workflows": questions.list_workflows,
        }
        self._changes: Final[dict[str, Change]] = {
            "register": register_calls.register,
            "scale": version_calls.scale,
            "unregister": version_calls.unregister,
            "set_default": version_calls.set_default,
            "snapshot": self._snapshots.take,
            "register_workflow": register_calls.register_workflow,
            "unregister_workflow": version_calls.unregister_workflow,
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
            isinstance(outcome, StokerError) and self._unsettled.drop(registers)
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
                await self._unsettled.take_back(registers)
            else:
                await self._unsettled.keep(registers)
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
        self._archives.release(spec)

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
            self._engine,
            self._places,
            self._clock,
            self._source,
            self._journal,
            self._registrations,
            self._absent,
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
        self._source.close()


async def _guarded(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        log.exception("task failed")
