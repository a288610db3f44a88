"""All worker processes, as the loop sees them: who was started, who said hello, who is gone.

Carries out what the engine wants of workers and tells it what became of them.
A process proves with its token and its pid that it is the one we started;
from then on its connection stands for it, until the process is gone.

Source: design sections 3, 4 and 7.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from stoker.clock import Clock
from stoker.errors import ProtocolError, ShuttingDown, SpawnFailed
from stoker.logs import get_logger
from stoker.process_start import start_ticks
from stoker.settings import Settings
from stoker.strays import reap_strays
from stoker.supervisor import actions as a
from stoker.supervisor.core_pinning import CorePinning, read_processors
from stoker.supervisor.core_shares import parse_launcher_args
from stoker.supervisor.deaths import Exit
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.escaped import kill_escaped
from stoker.supervisor.exits import ExitStatus
from stoker.supervisor.guarding import guarded
from stoker.supervisor.host_fencing import HostFencing
from stoker.supervisor.jobs import deadlines_in_hand
from stoker.supervisor.launcher import WorkerProcess
from stoker.supervisor.metrics import Metrics
from stoker.supervisor.nurseries import Nurseries, is_executed
from stoker.supervisor.oom_kills import OomKills
from stoker.supervisor.processes import LocalLauncher
from stoker.supervisor.reaping import kill_orphan
from stoker.supervisor.returning import Returning
from stoker.supervisor.versions import Failure, VersionSpec
from stoker.supervisor.worker_ledger import WorkerLedger
from stoker.supervisor.worker_orders import WorkerOrders
from stoker.supervisor.worker_output import WorkerOutput
from stoker.supervisor.worker_port import WorkerPort, speaks_for
from stoker.supervisor.worker_record import WorkerRecord, spec_hash, token_hash
from stoker.wire import codec
from stoker.wire import frames as f
from stoker.wire.arena_folder import arena_folder, hold_arenas, let_go_of_arenas
from stoker.wire.connections import Connection
from stoker.wire.runtime_dir import prepare_folder, worker_address, worker_folder

log = get_logger("supervisor")

TOKEN_BYTES: Final = 16
#: Characters of what a handler complained of while it started.
MAX_FLAW: Final = 1000
#: How often we look for what nothing wakes us for.
SWEEP_S: Final = 1.0
#: At the end, what workers left behind has so long to be gone.
ESCAPED_S: Final = 1.0
ESCAPED_LOOK_S: Final = 0.01
#: A worker that somebody stopped (SIGSTOP) for so long will not go on by itself.
STOPPED_S: Final = 30.0


class _Process:
    """What we know of a worker's process."""

    __slots__ = ("pid", "slot", "token")

    def __init__(self, token: bytes, slot: int) -> None:
        self.token = token
        self.slot = slot
        self.pid = -1


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
        ledger: WorkerLedger,
        metrics: Metrics,
        end_turn: Callable[[], None],
        fencing: HostFencing,
    ) -> None:
        self._settings = settings
        self._fencing = fencing
        self._arenas = arena_folder(settings.runtime_dir)
        sockets = worker_folder(settings.runtime_dir)
        if fencing.user is None:
            prepare_folder(sockets)
        self._engine = engine
        self._places = places
        self._clock = clock
        self._loop = loop
        self._ledger = ledger
        self._metrics = metrics
        before = ledger.take_over()
        self._returning = Returning(before)
        engine.numbers.inherit(self._returning.orphans, before.worker_id, before.slot)
        self._end_turn = end_turn
        self._processes: dict[int, _Process] = {}
        self._sweep_at = 0.0
        self._stopped_since: dict[int, float] = {}
        self._orders = WorkerOrders(settings, places, fencing, metrics.for_workers)
        self._oom_kills = OomKills()
        #: None unless workers are to be pinned to cores.
        self._pinning = _pinning_of(settings)
        self._output = WorkerOutput(
            settings.log_dir, settings.worker_log_max_bytes, take_metric=metrics.take_printed
        )
        self._nurseries = Nurseries(
            loop,
            self._orders,
            self._output,
            self._spawn_now,
            self._refuse_load,
            uses_templates=settings.worker_template,
        )
        self._launcher = LocalLauncher(loop, nursery=self._nurseries.templates)
        self._port = WorkerPort(
            loop,
            clock,
            worker_address(settings.runtime_dir),
            guarded(self._take),
            end_turn,
            self._lose,
            self._accuse,
            fencing.peer,
        )
        #: What of the engine's actions is ours to carry out.
        self.performers: Final[dict[type, Callable[[Any], object]]] = {
            a.Spawn: self._spawn,
            a.Adopt: self._adopt,
            a.SendLoad: self._send_load,
            a.SendBatch: self._send_batch,
            a.LetGather: self._let_gather,
            a.SendDrop: self._send_drop,
            a.SendLeave: self._send_leave,
            a.Abort: lambda action: self._launcher.signal(action.worker_id, signal.SIGABRT),
            a.Kill: self._kill,
        }

    def flush(self) -> None:
        """Send the batches of this turn."""
        self._port.flush()

    def sweep(self, now: float) -> None:
        """Look for what nothing wakes us for: strays, strangers, stopped workers."""
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_S
        # Orphans of dead workers: as subreaper we inherit them.
        reap_strays(self._launcher.pids())
        self._kill_escaped()
        self._port.sweep(now)
        self._nurseries.sweep(self._engine.wants_workers)
        if self._pinning is not None:
            self._pinning.look(self._engine.crews())
        since = self._stopped_since
        self._stopped_since = {w: since.get(w, now) for w in self._launcher.stopped()}
        for worker_id, stopped_at in self._stopped_since.items():
            if now - stopped_at >= STOPPED_S:
                self._engine.worker_out_of_reach(worker_id, now)

    def _kill_escaped(self) -> int:
        running = {w: (process.slot, process.pid) for w, process in self._processes.items()}
        return kill_escaped(running, self._nurseries.pids())

    def release(self, spec: VersionSpec) -> None:
        """A version is gone with all its workers."""
        self._nurseries.release(spec)

    def let_go(self) -> None:
        """End without an end for the workers: a successor will want them."""
        self._nurseries.let_nobody_wait()
        self._launcher.let_go()
        self._nurseries.close()
        self._output.close_all()
        self._port.close()
        self._ledger.let_go()

    async def close(self) -> None:
        """Kill and reap who is left."""
        self._nurseries.let_nobody_wait()
        await self._launcher.close()
        self._processes.clear()
        until = self._clock.now() + ESCAPED_S
        while self._kill_escaped() and self._clock.now() < until:
            await asyncio.sleep(ESCAPED_LOOK_S)
            reap_strays(())
        self._nurseries.close()
        self._output.close_all()
        self._port.close()
        let_go_of_arenas(self._arenas)
        with contextlib.suppress(OSError):
            worker_folder(self._settings.runtime_dir).rmdir()
        self._ledger.close()

    # -- starting -------------------------------------------------------------

    def _spawn(self, action: a.Spawn) -> None:
        """Start a worker; at once, or as soon as it can be forked instead of executed."""
        self._processes[action.worker_id] = _Process(secrets.token_bytes(TOKEN_BYTES), action.slot)
        if self._nurseries.may_start(action):
            self._spawn_now(action)

    def _kill(self, action: a.Kill) -> None:
        worker_id = action.worker_id
        why = self._nurseries.forget(worker_id)
        if why is None:
            self._launcher.stop(worker_id)
        else:
            self._loop.call_soon(guarded(self._gone), worker_id, Exit(why))

    def _refuse_load(self, worker_id: int, failure: Failure) -> None:
        """The process that its model was to be forked from says that this cannot be."""
        self._engine.worker_cannot_load(worker_id, failure, self._clock.now())
        self._gone(worker_id, Exit("was not started"))

    def _spawn_now(self, action: a.Spawn) -> None:
        worker_id = action.worker_id
        process = self._processes[worker_id]
        try:
            process.pid = self._start_process(action, process.token)
        except (SpawnFailed, ShuttingDown) as error:
            reason = error.message
        except Exception:
            log.exception("worker cannot be started")
            reason = "could not be started; see the supervisor's log"
        else:
            self._ledger.started(self._record(action, process))
            self._engine.worker_spawned(worker_id, process.pid)
            return
        # Later: the engine's other actions of this turn come first.
        self._loop.call_soon(guarded(self._gone), worker_id, Exit(reason))

    def _start_process(self, action: a.Spawn, token: bytes) -> int:
        worker_id, slot, spec, _ = action
        if is_executed(spec):
            # What a sandbox shows must be there, and stay the same folder.
            hold_arenas(self._arenas, self._fencing.user.gid if self._fencing.user else None)
        self._output.open(worker_id, spec.model, spec.version, slot)
        command = self._nurseries.prepare(self._orders.command(action, token), spec)
        if self._pinning is not None:
            cores = self._pinning.environment(self._engine.slots_of(worker_id), slot)
            # A template has torch's threads counted already.
            command = replace(command, env={**cores, **command.env}, may_fork=False)
        started = self._launcher.start(worker_id, command, guarded(self._exited), self._output.feed)
        if self._pinning is not None:
            self._pinning.place(self._engine.slots_of(worker_id), slot, started.pid)
        return started.pid

    # -- adopting -------------------------------------------------------------

    def _adopt(self, action: a.Adopt) -> None:
        worker_id, slot, pid, spec = action
        record = self._returning.living[worker_id]
        process = self._processes[worker_id] = _Process(b"", slot)
        process.pid = pid
        self._output.open(worker_id, spec.model, spec.version, slot)
        try:
            self._launcher.adopt(
                WorkerProcess(worker_id, pid, time.time()),
                record.start_ticks,
                f"{spec.model}:{spec.version}",
                guarded(self._exited),
                self._output.feed,
            )
        except Exception as error:
            # Whatever it was, its place must not wait for it for ever.
            if not isinstance(error, LookupError):
                log.exception("worker cannot be adopted")
            kill_orphan(pid, record.start_ticks)
            self._loop.call_soon(guarded(self._gone), worker_id, Exit("unknown"))
        else:
            self._loop.call_soon(guarded(self._take_back), worker_id)

    def part_with_orphans(self) -> None:
        """Whoever nobody has adopted by now is not wanted any more."""
        for record in self._returning.take_unwanted(self._processes):
            log.warning(
                "orphan is not wanted",
                model=record.model,
                version=record.version,
                worker=record.slot,
                worker_pid=record.pid,
            )
            kill_orphan(record.pid, record.start_ticks)
            self._ledger.ended(record.worker_id)

    def _greet_returned(self, connection: Connection, back: f.WorkerBack) -> None:
        if not self._returning.greet(connection, back):
            # An orphan that came too late is well-behaved; it will leave.
            connection.send(codec.encode(f.Leave()))
            self._port.ban(connection, "a worker that nobody misses")
            return
        self._port.admit(connection, back.worker_id)

    def _take_back(self, worker_id: int) -> None:
        """When both it has said everything, and somebody has adopted it."""
        if worker_id not in self._processes:
            return
        returned = self._returning.take(worker_id)
        if returned is None:
            return
        self._ledger.loaded(worker_id)
        # A word from us, so that it knows that it has found us.
        self._port.tell(worker_id, f.Drop([]))
        self._note_heavy(worker_id, returned.heavy)
        self._engine.worker_came_back(
            worker_id, returned.replies, self._clock.now(), returned.sequences
        )
        self._end_turn()

    def _record(self, action: a.Spawn, process: _Process) -> WorkerRecord:
        worker_id, slot, spec, _ = action
        return WorkerRecord(
            worker_id=worker_id,
            slot=slot,
            pid=process.pid,
            start_ticks=start_ticks(process.pid) or 0,
            token=token_hash(process.token),
            model=spec.model,
            version=spec.version,
            spec=spec_hash(spec),
            devices=tuple(device.uuid for device in self._places.of_worker(worker_id)),
        )

    def _greet(self, connection: Connection, hello: f.WorkerHello, now: float) -> None:
        process = self._processes.get(hello.worker_id)
        if (
            process is None
            or self._port.knows(hello.worker_id)
            or not speaks_for(process.pid, hello, connection)
            or not hmac.compare_digest(process.token, hello.token)
        ):
            self._port.ban(connection, "a worker that we did not start")
            return
        self._port.admit(connection, hello.worker_id)
        self._launcher.settle(hello.worker_id)
        self._engine.worker_said_hello(hello.worker_id, now)

    def _note_heavy(self, worker_id: int, heavy: object) -> None:
        spec = self._engine.spec_of(worker_id)
        if spec is not None:
            self._nurseries.note_heavy(spec, heavy)

    # -- what they say --------------------------------------------------------

    def _take(self, connection: Connection, worker_id: int | None, message: f.FromWorker) -> None:
        now = self._clock.now()
        if isinstance(message, f.WorkerHello):
            self._greet(connection, message, now)
            return
        if worker_id is None:
            if isinstance(message, f.WorkerBack):
                self._greet_returned(connection, message)
            else:
                self._port.ban(connection, "no hello")
            return
        try:
            if isinstance(message, f.Replies):
                self._engine.worker_replied(worker_id, message.replies, now)
            elif isinstance(message, f.Loaded):
                self._note_heavy(worker_id, message.info.get("heavy"))
                # Before it can be given a job: a successor relies on that.
                self._ledger.loaded(worker_id)
                flaw = message.info.get("flaw")
                self._engine.worker_loaded(worker_id, now, str(flaw)[:MAX_FLAW] if flaw else "")
            elif isinstance(message, f.SequencesEnded):
                self._engine.worker_ended_sequences(worker_id, message.names, now)
            elif isinstance(message, f.Measurements):
                spec = self._engine.spec_of(worker_id)
                if spec is not None:
                    self._metrics.take_measured(spec.key, message.rows)
            elif isinstance(message, f.Kept):
                self._returning.hear_kept(worker_id, message.replies)
                self._take_back(worker_id)
            elif isinstance(message, f.WorkerBack):
                raise ProtocolError("it is here already")
            else:
                failure = Failure(
                    message.message, message.last_line, message.code == "load_out_of_memory"
                )
                self._engine.worker_load_failed(worker_id, failure, now)
        except (ProtocolError, AssertionError) as error:
            self._port.ban(connection, str(error))

    def _lose(self, worker_id: int, connection: Connection) -> None:
        if self._returning.lose(worker_id):
            self._port.forget(worker_id, connection)
        else:
            self._engine.worker_out_of_reach(worker_id, self._clock.now())

    def _accuse(self, worker_id: int, reason: str) -> None:
        if self._engine.worker(worker_id) is not None:
            self._engine.worker_lied(worker_id, self._clock.now(), reason)

    # -- what they are told ---------------------------------------------------

    def _send_load(self, action: a.SendLoad) -> None:
        self._port.tell(action.worker_id, f.Load(self._orders.load(action).to_wire()))

    def _send_batch(self, action: a.SendBatch) -> None:
        jobs = [f.WorkJob(job.job_id, job.payload) for job in action.jobs]
        deadlines = deadlines_in_hand(action.jobs)
        self._port.give(action.worker_id, f.WorkBatch(action.batch_id, jobs, deadlines))

    def _let_gather(self, action: a.LetGather) -> None:
        self._port.let_gather(action.worker_id, action.for_s)

    def _send_drop(self, action: a.SendDrop) -> None:
        self._port.tell(action.worker_id, f.Drop(action.job_ids))

    def _send_leave(self, action: a.SendLeave) -> None:
        self._port.tell(action.worker_id, f.Leave())

    # -- the end --------------------------------------------------------------

    def _exited(self, worker_id: int, status: ExitStatus) -> None:
        # Of a worker that never loaded, the last line it wrote is the best reason there is.
        lines = [line for line in self._output.tail(worker_id) if line.strip()]
        last_line = lines[-1] if lines else ""
        likely = status.likely() or ""
        is_killed = status.signal == signal.SIGKILL and not status.is_ours
        is_shot = is_killed and self._oom_kills.have_come() is False
        if is_shot:
            likely = "killed from outside"
        how = Exit(status.describe(), status.is_out_of_memory, last_line, likely, is_shot)
        self._gone(worker_id, how)

    def _gone(self, worker_id: int, how: Exit) -> None:
        del self._processes[worker_id]
        self._port.part_with(worker_id)
        self._output.close(worker_id)
        self._returning.forget(worker_id)
        self._ledger.ended(worker_id)
        self._engine.worker_exited(worker_id, how, self._clock.now())
        self._end_turn()


def _pinning_of(settings: Settings) -> CorePinning | None:
    """Raises SettingsError."""
    if not settings.cpu_launcher_enable:
        return None
    args = parse_launcher_args(settings.cpu_launcher_args)
    if args.moot:
        log.warning("cpu_launcher_args has what changes nothing here", arguments=list(args.moot))
    return CorePinning(args, read_processors())
