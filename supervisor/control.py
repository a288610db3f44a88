"""The management verbs: what a `Call` may ask, and what it is answered.

    register     url? model? handler? runtime? batch_size? max_batch_delay_s? initial_workers?
                 response_timeout_s? startup_timeout_s? version? synchronous s3_sse_kms
                 -> model version workers outcome (registered | scheduled | ready | partial)
    scale        model version? min_workers max_workers synchronous drain_timeout_s?
                 -> outcome (scheduled | ready | partial) min_workers
    describe     model version? all           -> versions[record]      (`descriptions.py`)
    unregister   model version?               -> model version
    set_default  model version                -> model version
    list         limit offset                 -> total models[model version url]
    health       -                            -> is_healthy has_ready_worker models{name: bool}
    startup_models -                          -> models[name]
    statistics   -                            -> numbers               (`statistics.py`)

`?` may be None.  Verbs know no dialect: texts, defaults and units are the
listener's.  Fetching and unpacking run in threads; everything else is
decided at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from stoker.archives.resolve import ArchiveRequest, ResolvedArchive
from stoker.clock import Clock
from stoker.errors import Internal, InvalidParameter, LoadFailed, StokerError, TooManyRequests
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.descriptions import Describer
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.specs import build_spec, initial_workers, startup_workers
from stoker.supervisor.statistics import statistics
from stoker.supervisor.versions import VersionKey, VersionSpec
from stoker.supervisor.worker_output import log_name

log = get_logger("control")

#: Registrations under way at once; each may hold a thread for a download.
MAX_REGISTRATIONS: Final = 64
#: A synchronous call waits for loading and a little more; draining may take longer.
SETTLE_GRACE_S: Final = 30.0
MAX_WAIT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a result goes."""

    identity: bytes
    call_id: int


@dataclass(slots=True)
class WaitingCall:
    """A call whose result comes later; `value` is merged with the engine's outcome."""

    caller: Caller | None
    value: dict[str, Any] = field(default_factory=dict)


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
        answer: Callable[[Caller, dict[str, Any] | StokerError], None],
        end_turn: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._places = places
        self._clock = clock
        self._answer = answer
        self._end_turn = end_turn
        #: Names, in order; they stay when their models go (`/invocations`).
        self._loaded_at_start: list[str] = []
        self._describer = Describer(engine, places, settings, self._loaded_at_start)
        self._archives = ArchiveSource(settings)
        self._tasks: set[asyncio.Task[None]] = set()
        #: Archives in use, until the last worker of their version is gone.
        self._held: dict[VersionSpec, ResolvedArchive] = {}
        self._verbs: Final[dict[str, Callable[[Arguments, Caller], dict[str, Any] | None]]] = {
            "register": self._register,
            "scale": self._scale,
            "describe": self._describe,
            "unregister": self._unregister,
            "set_default": self._set_default,
            "list": self._list,
            "health": self._health,
            "startup_models": self._startup_models,
            "statistics": self._statistics,
        }

    # -- in and out -----------------------------------------------------------

    def call(self, caller: Caller, verb: str, arguments: dict[str, Any]) -> None:
        """Answer a call now, or see to it that it is answered later."""
        handle = self._verbs.get(verb)
        try:
            if handle is None:
                raise InvalidParameter(f"There is no verb {verb!r}.", parameter="verb")
            value = handle(Arguments(arguments), caller)
        except StokerError as error:
            self._answer(caller, error)
        except Exception:
            log.exception("verb failed", verb=verb)
            self._answer(caller, Internal("The supervisor could not do that; see its log."))
        else:
            if value is not None:
                self._answer(caller, value)

    def resolve(self, call: WaitingCall, outcome: dict[str, Any] | StokerError) -> None:
        """The engine says how a waiting call ended."""
        if call.caller is None:
            return
        if isinstance(outcome, LoadFailed):
            details = outcome.details
            details["log"] = log_name(details["model"], details["version"])
        if isinstance(outcome, StokerError):
            self._answer(call.caller, outcome)
        else:
            self._answer(call.caller, {**call.value, **outcome})

    def release(self, spec: VersionSpec) -> None:
        """A version is gone with all its workers: its archive is not needed any more."""
        archive = self._held.pop(spec, None)
        if archive is not None:
            self._archives.release(archive)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._archives.close()

    # -- register -------------------------------------------------------------

    def _register(self, arguments: Arguments, caller: Caller) -> None:
        if len(self._tasks) >= MAX_REGISTRATIONS:
            raise TooManyRequests("Too many registrations are under way; try again later.")
        request = ArchiveRequest(
            url=arguments.optional("url", str),
            model=arguments.optional("model", str),
            handler=arguments.optional("handler", str),
            runtime=arguments.optional("runtime", str),
            version=arguments.optional("version", str),
            s3_sse_kms=arguments.flag("s3_sse_kms"),
            default_handler=self._settings.default_service_handler,
        )
        self._start(self._register_archive(request, arguments, caller))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _register_archive(
        self, request: ArchiveRequest, arguments: Arguments, caller: Caller
    ) -> None:
        try:
            archive = await self._archives.obtain(request)
            value = self._add(archive, arguments, caller)
        except StokerError as error:
            log.warning(
                "registration refused",
                url=request.url,
                reason=error.message,
                why=error.details.get("reason"),
            )
            self._answer(caller, error)
        except Exception:
            log.exception("registration failed", url=request.url)
            self._answer(caller, Internal("The registration failed; see the supervisor's log."))
        else:
            if value is not None:
                self._answer(caller, value)
        self._end_turn()

    def _add(
        self, archive: ResolvedArchive, arguments: Arguments, caller: Caller | None
    ) -> dict[str, Any] | None:
        """Put a version into the registry and staff it; None when the answer comes later."""
        is_startup = caller is None
        for warning in archive.warnings:
            log.warning("archive has a flaw", model=archive.model, flaw=warning)
        try:
            spec = build_spec(archive, arguments, self._settings, self._places, is_startup)
            if is_startup:
                min_workers, max_workers = startup_workers(archive, self._settings, self._places)
            else:
                min_workers, max_workers = initial_workers(archive, arguments, self._settings)
            self._engine.register(spec)
        except BaseException:
            self._archives.release(archive)
            raise
        self._held[spec] = archive
        if is_startup and spec.model not in self._loaded_at_start:
            self._loaded_at_start.append(spec.model)
        value: dict[str, Any] = {
            "model": spec.model,
            "version": spec.version,
            "workers": min_workers,
            "outcome": "registered",
        }
        if not max_workers:
            return value
        is_synchronous = arguments.flag("synchronous") and not is_startup
        self._engine.scale(
            spec.key,
            min_workers,
            max_workers,
            self._clock.now(),
            call=WaitingCall(caller, value) if is_synchronous else None,
            wait_s=spec.startup_timeout_s + SETTLE_GRACE_S,
            is_registration=is_synchronous,
        )
        return None if is_synchronous else {**value, "outcome": "scheduled"}

    async def load_at_startup(self) -> None:
        """`load_models`, one after the other; one that fails is logged and left out.

        Raises:
            SettingsError: `load_models=all` without a model store.
        """
        arguments = Arguments({})
        for model in self._archives.startup_models():
            request = ArchiveRequest(
                url=model.url,
                model=model.model,
                default_model=model.default_model,
                default_handler=self._settings.default_service_handler,
            )
            try:
                self._add(await self._archives.obtain(request), arguments, None)
            except StokerError as error:
                why = error.details.get("reason")
                log.error("startup model left out", url=model.url, reason=error.message, why=why)
            except Exception:
                log.exception("startup model left out", url=model.url)
            self._end_turn()

    # -- the other verbs ------------------------------------------------------

    def _scale(self, arguments: Arguments, caller: Caller) -> dict[str, Any] | None:
        served = self._engine.registry.find(
            arguments.required("model", str), arguments.optional("version", str)
        )
        min_workers = arguments.required("min_workers", int)
        max_workers = arguments.required("max_workers", int)
        if min_workers < 0 or max_workers < min_workers:
            raise InvalidParameter(
                "max_worker cannot be less than min_worker.", parameter="max_worker"
            )
        drain_s = arguments.seconds("drain_timeout_s")
        is_synchronous = arguments.flag("synchronous")
        value = {"min_workers": min_workers, "outcome": "scheduled"}
        wait_s = served.spec.startup_timeout_s + SETTLE_GRACE_S
        self._engine.scale(
            served.spec.key,
            min_workers,
            max_workers,
            self._clock.now(),
            drain_s=drain_s,
            call=WaitingCall(caller, value) if is_synchronous else None,
            wait_s=MAX_WAIT_S if drain_s is None else min(MAX_WAIT_S, wait_s + drain_s),
        )
        return None if is_synchronous else value

    def _describe(self, arguments: Arguments, caller: Caller) -> dict[str, Any]:
        model = arguments.required("model", str)
        registry = self._engine.registry
        if arguments.flag("all"):
            versions = registry.all_versions(model)
        else:
            versions = [registry.find(model, arguments.optional("version", str))]
        return {"versions": self._describer.describe(versions, self._clock.now())}

    def _unregister(self, arguments: Arguments, caller: Caller) -> None:
        model = arguments.required("model", str)
        version = arguments.optional("version", str)
        served = self._engine.registry.check_removable(model, version)
        key = served.spec.key
        call = WaitingCall(caller, {"model": key.model, "version": key.version})
        self._engine.unregister(
            key.model,
            key.version,
            self._clock.now(),
            call,
            self._settings.unregister_model_timeout,
        )

    def _set_default(self, arguments: Arguments, caller: Caller) -> dict[str, Any]:
        key = VersionKey(arguments.required("model", str), arguments.required("version", str))
        self._engine.registry.set_default(*key)
        log.info("default version set", model=key.model, version=key.version)
        return {"model": key.model, "version": key.version}

    def _list(self, arguments: Arguments, caller: Caller) -> dict[str, Any]:
        limit, offset = arguments.required("limit", int), arguments.required("offset", int)
        registry = self._engine.registry
        names = registry.names()
        models = []
        for name in names[max(0, offset) :][: max(0, limit)]:
            spec = registry.find(name).spec
            models.append({"model": name, "version": spec.version, "url": spec.shown["url"]})
        return {"total": len(names), "models": models}

    def _health(self, arguments: Arguments, caller: Caller) -> dict[str, Any]:
        now = self._clock.now()
        registry = self._engine.registry
        models = {name: registry.find(name).crew.is_healthy(now) for name in registry.names()}
        return {
            "is_healthy": all(models.values()),
            "has_ready_worker": any(served.pool.workers for served in registry),
            "models": models,
        }

    def _startup_models(self, arguments: Arguments, caller: Caller) -> dict[str, Any]:
        return {"models": self._loaded_at_start}

    def _statistics(self, arguments: Arguments, caller: Caller) -> dict[str, Any]:
        return statistics(self._engine, self._clock.now())
