"""The supervisor's loop: events in, actions out; outlives every exception.

Everything decided is decided by `engine.py`; this module owns what the engine
may not touch: sockets, processes, the clock.  Work per request here is:
decode one share of a message, `engine.submit`, `engine.take_actions`, encode
one share of a message.

Source: design sections 1, 3 and 4.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import zmq

from stoker.clock import Clock, MonotonicClock
from stoker.errors import ProtocolError, ShuttingDown, SpawnFailed, StokerError
from stoker.exit_codes import ExitCode
from stoker.logs import get_logger
from stoker.notify import Notifier
from stoker.settings import Settings
from stoker.supervisor import actions as a
from stoker.supervisor.control import Caller, Control
from stoker.supervisor.crews import Exit
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.devices import discover
from stoker.supervisor.engine import Engine
from stoker.supervisor.exits import ExitStatus
from stoker.supervisor.ports import FrontendPort, WorkerPort
from stoker.supervisor.processes import LocalLauncher, raise_descriptor_limit, reap_strays
from stoker.supervisor.template import TemplateNursery, become_subreaper
from stoker.supervisor.versions import Failure, VersionSpec
from stoker.supervisor.worker_environment import (
    EnvironmentPolicy,
    WorkerPlace,
    compile_blacklist,
    inherited,
    worker_command,
)
from stoker.supervisor.worker_output import WorkerOutput
from stoker.wire import frames as f
from stoker.wire.loading import LoadSpec
from stoker.wire.sockets import FolderLock, frontend_address, prepare_folder, worker_address

log = get_logger("supervisor")

#: A frontend says hello every second; silent for so long, it is gone.
FRONTEND_LOST_S: Final = 15.0
TOKEN_BYTES: Final = 16
#: How often orphans of dead workers are reaped.
STRAYS_S: Final = 1.0


class _Process:
    """What the loop knows of a worker's process."""

    __slots__ = ("identity", "pid", "token")

    def __init__(self, token: bytes) -> None:
        self.token = token
        self.pid = -1
        self.identity: bytes | None = None


class Supervisor:
    """Runs until stopped; `run` returns the exit code."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or MonotonicClock()
        self._notifier = Notifier(os.environ)
        self._incarnation = secrets.token_bytes(8)
        self._places = DevicePlaces(discover(settings.number_of_gpu, os.environ))
        self.engine = Engine(self._places, settings.initial_worker_port)
        self._processes: dict[int, _Process] = {}
        self._worker_of: dict[bytes, int] = {}
        self._frontends: dict[bytes, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._is_performing = False
        self._is_serving = False
        self._finished: asyncio.Event = asyncio.Event()
        self._watchdog_at = 0.0
        self._strays_at = 0.0
        #: Versions whose handler imported something heavy.
        self._preload: dict[VersionSpec, tuple[str, ...]] = {}
        self._perform: Final[dict[type, Callable[[Any], object]]] = {
            a.Spawn: self._spawn,
            a.SendLoad: self._send_load,
            a.SendBatch: self._send_batch,
            a.SendDrop: self._send_drop,
            a.SendLeave: self._send_leave,
            a.Abort: lambda action: self._signal(action.worker_id, signal.SIGABRT),
            a.Kill: lambda action: self._launcher.stop(action.worker_id),
            a.Forward: lambda action: self._frontend_port.answer(*action),
            a.Refuse: self._refuse,
            a.Resolve: lambda action: self._control.resolve(action.call, action.outcome),
            a.Release: self._release,
            a.Note: lambda action: getattr(log, action.level)(action.event, **action.facts),
        }

    # -- life -----------------------------------------------------------------

    async def run(self) -> ExitCode:
        """Raises SettingsError when the runtime directory is not ours alone."""
        settings = self._settings
        prepare_folder(settings.runtime_dir)
        lock = FolderLock(settings.runtime_dir)
        lock.acquire()
        loop = asyncio.get_running_loop()
        self._loop = loop
        become_subreaper()
        raise_descriptor_limit()
        self._output = WorkerOutput(settings.log_dir, settings.worker_log_max_bytes)
        self._policy = EnvironmentPolicy(
            cwd=os.getcwd(),
            parent_pid=os.getpid(),
            blacklist=compile_blacklist(settings.blacklist_env_vars),
            decode_input_request=settings.decode_input_request,
            hides_gpus=settings.number_of_gpu == 0,
        )
        nursery = TemplateNursery(inherited(os.environ, self._policy.blacklist))
        if settings.worker_template:
            nursery.warm(self._policy.python)
        self._nursery = nursery
        self._launcher = LocalLauncher(loop, nursery=nursery if settings.worker_template else None)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        context.set(zmq.MAX_SOCKETS, 16)
        self._frontend_port = FrontendPort(
            loop,
            context,
            frontend_address(settings.runtime_dir),
            self._guard(self._take_from_frontend),
            self._end_turn,
            self._lose_frontend,
        )
        self._worker_port = WorkerPort(
            loop,
            context,
            worker_address(settings.runtime_dir),
            self._guard(self._take_from_worker),
            self._end_turn,
            self._lose_worker,
        )
        self._control = Control(
            settings, self.engine, self._places, self._clock, self._answer_call, self._end_turn
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number.name)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        try:
            await self._control.load_at_startup()
            self._is_serving = True
            self._tick()
            self._notifier.ready("serving")
            log.info("supervisor ready", gpus=len(self._places.devices), pid=os.getpid())
            await self._finished.wait()
            self._frontend_port.flush()
        finally:
            self._notifier.stopping()
            await self._control.close()
            await self._launcher.close()
            nursery.close()
            self._output.close_all()
            self._frontend_port.close()
            self._worker_port.close()
            context.term()
            lock.release()
        log.info("supervisor stopped")
        return ExitCode.OK

    def _stop(self, name: str) -> None:
        now = self._clock.now()
        drain_s = 0.0 if self.engine.is_stopping else self._settings.drain_timeout_s
        log.info("stopping", signal=name, drain_s=drain_s)
        self.engine.stop(now, drain_s)
        self._end_turn()

    def _guard(self, handle: Callable[..., None]) -> Callable[..., None]:
        """The loop outlives any event: it is logged and the next one is taken."""

        def guarded(*args: Any) -> None:
            try:
                handle(*args)
            except Exception:
                log.exception("event failed")

        return guarded

    # -- time -----------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        now = self._clock.now()
        try:
            self.engine.tick(now)
            self._forget_silent_frontends(now)
            self._reap_strays(now)
            self._feed_watchdog(now)
        except Exception:
            log.exception("tick failed")
        self._end_turn()

    def _end_turn(self) -> None:
        """Decide, carry out, and be woken when the next thing is due."""
        if self._is_performing:
            return
        self._is_performing = True
        try:
            self.engine.dispatch(self._clock.now())
            # Carrying out may bring about more (a peer that turns out to be gone).
            while actions := self.engine.take_actions():
                for action in actions:
                    try:
                        self._perform[type(action)](action)
                    except Exception:
                        log.exception("action failed", action=type(action).__name__)
                self._worker_port.flush()
                self._frontend_port.flush()
        except Exception:
            log.exception("turn failed")
        finally:
            self._is_performing = False
        if self.engine.is_finished:
            self._finished.set()
        self._arm()

    def _arm(self) -> None:
        due_at = self.engine.next_due()
        if due_at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due_at
            self._timer = self._loop.call_later(max(0.0, due_at - self._clock.now()), self._tick)

    def _reap_strays(self, now: float) -> None:
        if now >= self._strays_at:
            self._strays_at = now + STRAYS_S
            reap_strays(self._launcher)

    def _feed_watchdog(self, now: float) -> None:
        interval_s = self._notifier.watchdog_interval_s
        if interval_s is not None and now >= self._watchdog_at:
            self._watchdog_at = now + interval_s / 2
            self._notifier.watchdog()

    # -- frontends ------------------------------------------------------------

    def _take_from_frontend(self, identity: bytes, message: f.FromFrontend) -> None:
        now = self._clock.now()
        if isinstance(message, f.Submit):
            for job in message.jobs:
                if not job[0].startswith(identity):
                    self._frontend_port.ban(identity, "a job of another frontend")
                    return
                self.engine.submit(job, now)
        elif isinstance(message, f.Cancel):
            for job_id in message.job_ids:
                if not job_id.startswith(identity):
                    self._frontend_port.ban(identity, "a job of another frontend")
                    return
                self.engine.cancel(job_id, now)
        elif isinstance(message, f.Call):
            self._control.call(Caller(identity, message.call_id), message.verb, message.arguments)
        else:
            if message.protocol != f.PROTOCOL:
                self._frontend_port.ban(identity, "a frontend of another release")
                return
            if identity not in self._frontends:
                log.info("frontend joined", frontend_pid=message.pid)
            self._frontends[identity] = now
            # Not before the startup models are registered: nobody shall be told
            # that a model is unknown which is only not there yet.
            if self._is_serving:
                self._frontend_port.send(identity, f.Welcome(f.PROTOCOL, self._incarnation))

    def _answer_call(self, caller: Caller, outcome: dict[str, Any] | StokerError) -> None:
        if isinstance(outcome, StokerError):
            result = f.Result(caller.call_id, outcome.code, outcome.message, outcome.details)
        else:
            result = f.Result(caller.call_id, None, "", outcome)
        self._frontend_port.send(caller.identity, result)

    def _refuse(self, action: a.Refuse) -> None:
        job_id, error = action
        self._frontend_port.refuse(
            job_id[: f.FRONTEND_ID_BYTES],
            f.RefusedJob(job_id, error.code, error.message, error.details),
        )

    def _lose_frontend(self, identity: bytes, reason: str) -> None:
        if self._frontends.pop(identity, None) is not None:
            log.warning("frontend lost", reason=reason)
        self.engine.forget_frontend(identity, self._clock.now())

    def _forget_silent_frontends(self, now: float) -> None:
        for identity, seen_at in list(self._frontends.items()):
            if now - seen_at > FRONTEND_LOST_S:
                self._lose_frontend(identity, "silent")

    # -- workers --------------------------------------------------------------

    def _take_from_worker(self, identity: bytes, message: f.FromWorker) -> None:
        now = self._clock.now()
        if isinstance(message, f.WorkerHello):
            self._greet_worker(identity, message, now)
            return
        worker_id = self._worker_of.get(identity)
        if worker_id is None:
            return  # its process is gone; this was still on the way
        try:
            if isinstance(message, f.Replies):
                self.engine.worker_replied(worker_id, message.replies, now)
            elif isinstance(message, f.Loaded):
                self._note_heavy(worker_id, message.info.get("heavy"))
                self.engine.worker_loaded(worker_id, now)
            else:
                failure = Failure(
                    message.message, message.last_line, message.code == "load_out_of_memory"
                )
                self.engine.worker_load_failed(worker_id, failure, now)
        except (ProtocolError, AssertionError) as error:
            self._worker_port.ban(identity, str(error))

    def _greet_worker(self, identity: bytes, hello: f.WorkerHello, now: float) -> None:
        process = self._processes.get(hello.worker_id)
        if (
            process is None
            or process.identity is not None
            or process.pid != hello.pid
            or hello.protocol != f.PROTOCOL
            or not hmac.compare_digest(process.token, hello.token)
        ):
            self._worker_port.ban(identity, "a worker that we did not start")
            return
        process.identity = identity
        self._worker_of[identity] = hello.worker_id
        self.engine.worker_said_hello(hello.worker_id, now)

    def _lose_worker(self, identity: bytes, reason: str) -> None:
        worker_id = self._worker_of.get(identity)
        if worker_id is not None and self.engine.worker(worker_id) is not None:
            self.engine.worker_lied(worker_id, self._clock.now(), reason)

    def _spawn(self, action: a.Spawn) -> None:
        worker_id = action.worker_id
        process = self._processes[worker_id] = _Process(secrets.token_bytes(TOKEN_BYTES))
        try:
            process.pid = self._start_process(action, process.token)
        except (SpawnFailed, ShuttingDown) as error:
            reason = error.message
        except Exception:
            log.exception("worker cannot be started")
            reason = "could not be started; see the supervisor's log"
        else:
            self.engine.worker_spawned(worker_id, process.pid)
            return
        # Later: the engine's other actions of this turn come first.
        self._loop.call_soon(self._guard(self._gone), worker_id, Exit(reason))

    def _note_heavy(self, worker_id: int, heavy: object) -> None:
        """The next worker of such a version is forked from a template that has the import."""
        spec = self.engine.spec_of(worker_id)
        if self._settings.worker_template and spec is not None and heavy == ["torch"]:
            self._preload[spec] = ("torch",)
            self._nursery.warm(self._policy.python, ("torch",))

    def _start_process(self, action: a.Spawn, token: bytes) -> int:
        worker_id, slot, spec, device = action
        place = WorkerPlace(
            worker_id=worker_id,
            slot=slot,
            model=spec.model,
            version=spec.version,
            handler=spec.loading["handler"],
            address=worker_address(self._settings.runtime_dir),
            token=token,
            model_dir=spec.loading["model_dir"],
            device=self._places.device(device),
            sees_gpus=spec.device_type != "cpu",
        )
        self._output.open(worker_id, spec.model, spec.version, slot)
        command = worker_command(place, self._policy, os.environ)
        started = self._launcher.start(
            worker_id,
            replace(command, preload=self._preload.get(spec, ())),
            self._guard(self._exited),
            self._output.feed,
        )
        return started.pid

    def _exited(self, worker_id: int, status: ExitStatus) -> None:
        # Of a worker that never loaded, the last line it wrote is the best reason there is.
        lines = [line for line in self._output.tail(worker_id) if line.strip()]
        last_line = lines[-1] if lines else ""
        self._gone(worker_id, Exit(status.describe(), status.is_out_of_memory, last_line))

    def _gone(self, worker_id: int, how: Exit) -> None:
        process = self._processes.pop(worker_id)
        if process.identity is not None:
            # What it answered before it died may still lie in the socket.
            self._worker_port.drain_now()
            self._worker_of.pop(process.identity, None)
        self._output.close(worker_id)
        self.engine.worker_exited(worker_id, how, self._clock.now())
        self._end_turn()

    def _release(self, action: a.Release) -> None:
        self._preload.pop(action.spec, None)
        self._control.release(action.spec)

    def _send_load(self, action: a.SendLoad) -> None:
        worker_id, spec, device_index = action
        device = self._places.device(device_index)
        gpu_id = None if device is None else device.gpu_id
        load = LoadSpec(
            model=spec.model,
            version=spec.version,
            batch_size=spec.batch.max_size,
            gpu_id=gpu_id,
            **spec.loading,
        )
        self._tell(worker_id, f.Load(load.to_wire()))

    def _send_batch(self, action: a.SendBatch) -> None:
        process = self._processes.get(action.worker_id)
        if process is not None and process.identity is not None:
            jobs = [f.WorkJob(job.job_id, job.payload) for job in action.jobs]
            self._worker_port.give(process.identity, f.WorkBatch(action.batch_id, jobs))

    def _send_drop(self, action: a.SendDrop) -> None:
        self._tell(action.worker_id, f.Drop(action.job_ids))

    def _send_leave(self, action: a.SendLeave) -> None:
        self._tell(action.worker_id, f.Leave())

    def _tell(self, worker_id: int, message: f.ToWorker) -> None:
        process = self._processes.get(worker_id)
        if process is not None and process.identity is not None:
            self._worker_port.tell(process.identity, message)

    def _signal(self, worker_id: int, number: signal.Signals) -> None:
        self._launcher.signal(worker_id, number)
