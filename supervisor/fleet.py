"""All worker processes, as the loop sees them: who was started, who said hello, who is gone.

Carries out what the engine wants of workers and tells it what became of them.
A process proves with its token and its pid that it is the one we started;
from then on its socket's identity stands for it, until the process is gone.

Source: design sections 3, 4 and 7.
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

from stoker.clock import Clock
from stoker.errors import ProtocolError, ShuttingDown, SpawnFailed
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.strays import reap_strays
from stoker.supervisor import actions as a
from stoker.supervisor.crews import Exit
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.exits import ExitStatus
from stoker.supervisor.guarding import guarded
from stoker.supervisor.ports import Context, WorkerPort
from stoker.supervisor.processes import LocalLauncher
from stoker.supervisor.template import TemplateNursery
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
from stoker.wire.runtime_dir import worker_address

log = get_logger("supervisor")

TOKEN_BYTES: Final = 16
#: How often orphans of dead workers are reaped.
STRAYS_S: Final = 1.0


class _Process:
    """What we know of a worker's process."""

    __slots__ = ("identity", "pid", "token")

    def __init__(self, token: bytes) -> None:
        self.token = token
        self.pid = -1
        self.identity: bytes | None = None


class Fleet:
    """Every worker process of this supervisor.

    Args:
        end_turn: Carries out what the engine decided.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        places: DevicePlaces,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        end_turn: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._places = places
        self._clock = clock
        self._loop = loop
        self._end_turn = end_turn
        self._processes: dict[int, _Process] = {}
        self._worker_of: dict[bytes, int] = {}
        self._strays_at = 0.0
        #: Versions whose handler imported something heavy.
        self._preload: dict[VersionSpec, tuple[str, ...]] = {}
        self._output = WorkerOutput(settings.log_dir, settings.worker_log_max_bytes)
        self._policy = EnvironmentPolicy(
            cwd=os.getcwd(),
            parent_pid=os.getpid(),
            blacklist=compile_blacklist(settings.blacklist_env_vars),
            decode_input_request=settings.decode_input_request,
            hides_gpus=settings.number_of_gpu == 0,
        )
        self._nursery = TemplateNursery(inherited(os.environ, self._policy.blacklist))
        if settings.worker_template:
            self._nursery.warm(self._policy.python)
        nursery = self._nursery if settings.worker_template else None
        self._launcher = LocalLauncher(loop, nursery=nursery)
        self._port = WorkerPort(
            loop,
            context,
            worker_address(settings.runtime_dir),
            guarded(self._take),
            end_turn,
            self._lose,
            self._accuse,
        )
        #: What of the engine's actions is ours to carry out.
        self.performers: Final[dict[type, Callable[[Any], object]]] = {
            a.Spawn: self._spawn,
            a.SendLoad: self._send_load,
            a.SendBatch: self._send_batch,
            a.SendDrop: self._send_drop,
            a.SendLeave: self._send_leave,
            a.Abort: lambda action: self._launcher.signal(action.worker_id, signal.SIGABRT),
            a.Kill: lambda action: self._launcher.stop(action.worker_id),
        }

    def flush(self) -> None:
        """Send the batches of this turn."""
        self._port.flush()

    def reap_strays(self, now: float) -> None:
        """Orphans of dead workers: as subreaper we inherit them."""
        if now >= self._strays_at:
            self._strays_at = now + STRAYS_S
            reap_strays({process.pid for process in self._launcher.list()})

    def release(self, spec: VersionSpec) -> None:
        """A version is gone with all its workers."""
        self._preload.pop(spec, None)

    async def close(self) -> None:
        """Kill and reap who is left."""
        await self._launcher.close()
        self._nursery.close()
        self._output.close_all()
        self._port.close()

    # -- starting -------------------------------------------------------------

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
            self._engine.worker_spawned(worker_id, process.pid)
            return
        # Later: the engine's other actions of this turn come first.
        self._loop.call_soon(guarded(self._gone), worker_id, Exit(reason))

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
            guarded(self._exited),
            self._output.feed,
        )
        return started.pid

    def _greet(self, identity: bytes, hello: f.WorkerHello, now: float) -> None:
        process = self._processes.get(hello.worker_id)
        if (
            process is None
            or process.identity is not None
            or process.pid != hello.pid
            or hello.protocol != f.PROTOCOL
            or not hmac.compare_digest(process.token, hello.token)
        ):
            self._port.ban(identity, "a worker that we did not start")
            return
        process.identity = identity
        self._worker_of[identity] = hello.worker_id
        self._engine.worker_said_hello(hello.worker_id, now)

    def _note_heavy(self, worker_id: int, heavy: object) -> None:
        """The next worker of such a version is forked from a template that has the import."""
        spec = self._engine.spec_of(worker_id)
        if self._settings.worker_template and spec is not None and heavy == ["torch"]:
            self._preload[spec] = ("torch",)
            self._nursery.warm(self._policy.python, ("torch",))

    # -- what they say --------------------------------------------------------

    def _take(self, identity: bytes, message: f.FromWorker) -> None:
        now = self._clock.now()
        if isinstance(message, f.WorkerHello):
            self._greet(identity, message, now)
            return
        worker_id = self._worker_of.get(identity)
        if worker_id is None:
            return  # its process is gone; this was still on the way
        try:
            if isinstance(message, f.Replies):
                self._engine.worker_replied(worker_id, message.replies, now)
            elif isinstance(message, f.Loaded):
                self._note_heavy(worker_id, message.info.get("heavy"))
                self._engine.worker_loaded(worker_id, now)
            else:
                failure = Failure(
                    message.message, message.last_line, message.code == "load_out_of_memory"
                )
                self._engine.worker_load_failed(worker_id, failure, now)
        except (ProtocolError, AssertionError) as error:
            self._port.ban(identity, str(error))

    def _lose(self, identity: bytes, reason: str) -> None:
        worker_id = self._worker_of.get(identity)
        if worker_id is not None:
            self._engine.worker_out_of_reach(worker_id, self._clock.now())

    def _accuse(self, identity: bytes, reason: str) -> None:
        worker_id = self._worker_of.get(identity)
        if worker_id is not None and self._engine.worker(worker_id) is not None:
            self._engine.worker_lied(worker_id, self._clock.now(), reason)

    # -- what they are told ---------------------------------------------------

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
            self._port.give(process.identity, f.WorkBatch(action.batch_id, jobs))

    def _send_drop(self, action: a.SendDrop) -> None:
        self._tell(action.worker_id, f.Drop(action.job_ids))

    def _send_leave(self, action: a.SendLeave) -> None:
        self._tell(action.worker_id, f.Leave())

    def _tell(self, worker_id: int, message: f.ToWorker) -> None:
        process = self._processes.get(worker_id)
        if process is not None and process.identity is not None:
            self._port.tell(process.identity, message)

    # -- the end --------------------------------------------------------------

    def _exited(self, worker_id: int, status: ExitStatus) -> None:
        # Of a worker that never loaded, the last line it wrote is the best reason there is.
        lines = [line for line in self._output.tail(worker_id) if line.strip()]
        last_line = lines[-1] if lines else ""
        self._gone(worker_id, Exit(status.describe(), status.is_out_of_memory, last_line))

    def _gone(self, worker_id: int, how: Exit) -> None:
        process = self._processes.pop(worker_id)
        if process.identity is not None:
            # What it answered before it died may still lie in the socket.
            self._port.drain_now()
            self._worker_of.pop(process.identity, None)
        self._output.close(worker_id)
        self._engine.worker_exited(worker_id, how, self._clock.now())
        self._end_turn()
