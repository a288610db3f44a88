"""The supervisor's loop: events in, actions out; outlives every exception.

Everything decided is decided by `engine.py`; what the engine may not touch is
touched here and in `fleet.py`: sockets, processes, the clock.  Work per
request here is: decode one share of a message, `engine.submit`,
`engine.take_actions`, encode one share of a message.

Source: design sections 1, 3 and 4.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from stoker.clock import Clock, MonotonicClock
from stoker.errors import StokerError
from stoker.exit_codes import ExitCode
from stoker.logs import get_logger
from stoker.metrics_config import read_metrics_config
from stoker.notify import Notifier
from stoker.settings import Settings
from stoker.strays import become_subreaper
from stoker.supervisor import actions as a
from stoker.supervisor.adapter_files import remove_all_adapters
from stoker.supervisor.alarm import Alarm
from stoker.supervisor.calls import Caller
from stoker.supervisor.contents import ContentReader
from stoker.supervisor.control import Control
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.devices import discover
from stoker.supervisor.engine import Engine
from stoker.supervisor.fleet import Fleet
from stoker.supervisor.frontend_port import FrontendPort
from stoker.supervisor.guarding import guarded
from stoker.supervisor.host_fencing import check_fencing, find_fencing
from stoker.supervisor.journal_place import JournalPlace
from stoker.supervisor.launches import launch_id
from stoker.supervisor.memory_watch import MemoryWatch
from stoker.supervisor.metrics import Metrics
from stoker.supervisor.processes import raise_descriptor_limit
from stoker.supervisor.worker_ledger import WorkerLedger
from stoker.wire import frames as f
from stoker.wire.arena_folder import arena_folder
from stoker.wire.runtime_dir import (
    FolderLock,
    answers_address,
    frontend_address,
    prepare_folder,
)

log = get_logger("supervisor")

#: Of a job's payload, beside what the settings allow a client.
PAYLOAD_SLACK_BYTES: Final = 1 << 20
#: Frontends are few; also dead ones are remembered.
MAX_GREETED: Final = 1024
#: What workers that came back have answered lately, for frontends that are still to come.
MAX_UNDELIVERED: Final = 16_384
UNDELIVERED_S: Final = 60.0
#: While it starts, whoever waits for us hears at most so often that we go on.
STILL_STARTING_S: Final = 5.0


class Supervisor:
    """Runs until stopped; `run` returns the exit code."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or MonotonicClock()
        self._notifier = Notifier(os.environ)
        self._incarnation = secrets.token_bytes(8)
        self._places = DevicePlaces(discover(settings.number_of_gpu, os.environ))
        self.engine = Engine(
            self._places,
            settings.initial_worker_port,
            settings.max_body_memory_bytes,
            ContentReader(arena_folder(settings.runtime_dir)),
        )
        self._memory_watch = MemoryWatch(self.engine)
        # Raises SettingsError: a wrong file shall not be noticed at the first scrape.
        config = read_metrics_config(settings.metrics_config)
        folder = Path(os.environ.get("METRICS_LOCATION") or settings.log_dir)
        devices = self._places.devices
        self._metrics = Metrics(self.engine, settings, config, folder, devices)
        #: Who has said hello and can be answered, and the pid that it gave.
        self._frontends: dict[bytes, int] = {}
        self._alarm_at = float("inf")
        #: Who knows that it speaks to us and not to our predecessor.
        self._greeted: dict[bytes, None] = {}
        #: Answers for those that have not found us yet.
        self._undelivered: dict[bytes, list[f.AnswerFrame]] = {}
        self._undelivered_count = 0
        self._is_handing_over = False
        self._is_performing = False
        self._is_serving = False
        self._finished: asyncio.Event = asyncio.Event()
        self._watchdog_at = 0.0
        self._started_at = self._serving_since = self._clock.now()

    # -- life -----------------------------------------------------------------

    async def run(self) -> ExitCode:
        """Raises SettingsError when the runtime directory is not ours alone."""
        settings = self._settings
        fencing = find_fencing(settings)
        prepare_folder(settings.runtime_dir, may_be_passed=fencing.user is not None)
        lock = FolderLock(settings.runtime_dir)
        lock.acquire()
        check_fencing(fencing, settings)
        loop = asyncio.get_running_loop()
        self._loop = loop
        become_subreaper()
        raise_descriptor_limit()
        self._alarm = Alarm(loop, self._tick)
        ledger = WorkerLedger(settings.runtime_dir, self._incarnation.hex())
        self._fleet = Fleet(
            settings,
            self.engine,
            self._places,
            self._clock,
            loop,
            ledger,
            self._metrics,
            self._end_turn,
            fencing,
        )
        self._frontend_port = FrontendPort(
            loop,
            self._clock,
            frontend_address(settings.runtime_dir),
            answers_address(settings.runtime_dir),
            guarded(self._take_from_frontend),
            self._end_turn,
            self._lose_frontend,
            # A form is packed with a name and a type for each of its parts.
            2 * (settings.max_request_size + settings.max_header_size) + PAYLOAD_SLACK_BYTES,
        )
        place = JournalPlace(settings, launch_id(os.environ))
        journal = await place.open()
        self._control = Control(
            settings,
            self.engine,
            self._places,
            self._clock,
            journal,
            self._metrics,
            self._answer_call,
            self._end_turn,
            fencing,
        )
        self._performers = self._who_performs()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number.name)
        loop.add_signal_handler(signal.SIGUSR2, self._hand_over)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        try:
            if not place.goes_on:
                remove_all_adapters(self._settings.runtime_dir)
            await self._control.start(
                goes_on=place.goes_on, keep_aside=place.keep_aside, progress=self._still_starting
            )
            self._is_serving = True
            self._serving_since = self._clock.now()
            self._fleet.part_with_orphans()
            self._tick()
            self._notifier.ready("serving")
            log.info("supervisor ready", gpus=len(self._places.devices), pid=os.getpid())
            await self._finished.wait()
            self._frontend_port.flush()
            if not self._is_handing_over:
                await place.end(journal)
        finally:
            self._notifier.stopping()
            await self._control.close()
            await journal.close()
            place.close()
            if self._is_handing_over:
                self._fleet.let_go()
            else:
                await self._fleet.close()
            self._metrics.close()
            self._frontend_port.close()
            self._alarm.close()
            lock.release()
        log.info("supervisor stopped")
        return ExitCode.OK

    def _still_starting(self) -> None:
        """Unpacking what is restored may take longer than a start may take without a word."""
        now = self._clock.now()
        if now - self._started_at >= STILL_STARTING_S:
            self._started_at = now
            self._notifier.extend_timeout(self._settings.start_timeout_s)

    def _stop(self, name: str) -> None:
        now = self._clock.now()
        drain_s = 0.0 if self.engine.is_stopping else self._settings.drain_timeout_s
        log.info("stopping", signal=name, drain_s=drain_s)
        self._control.stop()
        self.engine.stop(now, drain_s)
        self._end_turn()

    def _hand_over(self) -> None:
        """End, and leave the workers to a successor: how a supervisor is replaced."""
        log.info("handing over")
        self._is_handing_over = True
        self._finished.set()

    def _who_performs(self) -> dict[type, Callable[[Any], object]]:
        return {
            **self._fleet.performers,
            a.Forward: self._forward,
            a.Refuse: self._refuse,
            a.Announce: self._announce,
            a.Retry: self._retry,
            a.Resolve: lambda action: self._control.resolve(action.call, action.outcome),
            a.Release: self._release,
            a.Note: lambda action: getattr(log, action.level)(action.event, **action.facts),
        }

    # -- time -----------------------------------------------------------------

    def _tick(self) -> None:
        self._alarm_at = float("inf")
        now = self._clock.now()
        try:
            self.engine.tick(now)
            if self._undelivered and now - self._serving_since > UNDELIVERED_S:
                self._undelivered.clear()
                self._undelivered_count = 0
            self._fleet.sweep(now)
            self._frontend_port.sweep(now)
            self._memory_watch.look(now)
            self._metrics.look(now)
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
                        self._performers[type(action)](action)
                    except Exception:
                        log.exception("action failed", action=type(action).__name__)
                self._fleet.flush()
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
        if due_at < self._alarm_at:
            self._alarm_at = due_at
            self._alarm.set(due_at - self._clock.now())

    def _feed_watchdog(self, now: float) -> None:
        interval_s = self._notifier.watchdog_interval_s
        if interval_s is not None and now >= self._watchdog_at:
            self._watchdog_at = now + interval_s / 2
            self._notifier.watchdog()

    # -- frontends ------------------------------------------------------------

    def _take_from_frontend(self, identity: bytes, message: f.FromFrontend) -> None:
        now = self._clock.now()
        if identity not in self._greeted and isinstance(message, f.Submit | f.Cancel):
            # It was meant for our predecessor; to us it will be said again.
            if isinstance(message, f.Submit):
                self.engine.overhear(message.jobs, now)
            return
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
            if self._is_serving and self._frontend_port.listens(identity):
                caller = Caller(identity, message.call_id)
                self._control.call(caller, message.verb, message.arguments)
        else:
            if message.protocol != f.PROTOCOL:
                self._frontend_port.ban(identity, "a frontend of another release")
                return
            if not self._frontend_port.listens(identity):
                return  # it lost its way back meanwhile, and will say it again
            if identity not in self._frontends:
                log.info("frontend joined", frontend_pid=message.pid)
                self._frontends[identity] = message.pid
            # Not before the startup models are registered: nobody shall be told
            # that a model is unknown which is only not there yet.
            if self._is_serving:
                if message.incarnation in (b"", self._incarnation):
                    self._greet(identity)
                self._frontend_port.send(identity, f.Welcome(f.PROTOCOL, self._incarnation))

    def _greet(self, identity: bytes) -> None:
        if identity not in self._greeted:
            self._greeted[identity] = None
            frames = self._undelivered.pop(identity, ())
            self._undelivered_count -= len(frames)
            for frame in frames:
                self._frontend_port.answer(identity, frame)
            if frames:
                # A turn in which nothing was decided sends nothing by itself.
                self._frontend_port.flush()
            while len(self._greeted) > MAX_GREETED:
                del self._greeted[next(iter(self._greeted))]

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

    def _forward(self, action: a.Forward) -> None:
        frontend_id, frame = action
        if frontend_id in self._greeted:
            self._frontend_port.answer(frontend_id, frame)
        elif self._undelivered_count < MAX_UNDELIVERED:
            self._undelivered.setdefault(frontend_id, []).append(frame)
            self._undelivered_count += 1

    def _retry(self, action: a.Retry) -> None:
        job_id, attempts = action
        frontend_id = job_id[: f.FRONTEND_ID_BYTES]
        self._frontend_port.send(frontend_id, f.Retried([f.RetriedJob(job_id, attempts)]))

    def _announce(self, action: a.Announce) -> None:
        for identity in list(self._frontends):
            self._frontend_port.send(identity, f.Full([action.queue]))

    def _release(self, action: a.Release) -> None:
        self._fleet.release(action.spec)
        self._control.release(action.spec)
        self._metrics.forget(action.spec.key)

    def _lose_frontend(self, identity: bytes, reason: str) -> None:
        pid = self._frontends.pop(identity, None)
        if pid is not None:
            log.info("frontend left", frontend_pid=pid, reason=reason)
        self.engine.forget_frontend(identity, self._clock.now())
