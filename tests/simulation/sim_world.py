"""The world around the engine: time, frontends, operators and worker processes.

The world plays the loop's part.  Events reach the engine one by one; what it
decides is judged at once (`sim_checks.py`) and carried out at the end of the
turn, which may take in several events, as a real turn does.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from sim_checks import Judge
from sim_faults import (
    CALM,
    GIB,
    POISONED,
    POISONS,
    WILD,
    Faults,
    Handler,
    random_handler,
    random_spec,
)
from sim_many import SimManyWorker
from sim_records import SimCall, SimJob, check
from sim_sequences import headers_in, random_label
from sim_workers import SimWorker

from stoker.errors import ProtocolError, StokerError
from stoker.supervisor import actions as a
from stoker.supervisor.deaths import Exit
from stoker.supervisor.engine import SWEEP_S, Engine
from stoker.supervisor.quarantine import Content
from stoker.supervisor.versions import Failure, VersionKey, VersionSpec
from stoker.wire.frames import JobFlag, Reply, SubmittedJob

MODELS = ("bert", "echo", "resnet")


class Places:
    """Two devices, and who is on them."""

    def __init__(self) -> None:
        self.placed: dict[int, int | None] = {}

    def place(self, worker_id: int, spec: VersionSpec) -> int | None:
        check(worker_id not in self.placed, "a worker is placed twice", worker_id)
        self.placed[worker_id] = device = worker_id % 2 if spec.device_type == "gpu" else None
        return device

    def release(self, worker_id: int) -> None:
        check(worker_id in self.placed, "a place is released twice", worker_id)
        del self.placed[worker_id]


class Contents:
    """What a request says is its payload."""

    def size(self, job_id: bytes, payload: bytes) -> int:
        return len(payload)

    def read(self, job_id: bytes, payload: bytes) -> Content:
        return Content(len(payload), payload)

    def headers(self, payload: bytes) -> list[str]:
        return headers_in(payload)


class World:
    """One run.

    Attributes:
        jobs: What clients still wait for; must be what the engine holds.
        counts: What happened how often, so that a test can see that the
            simulation reaches what it is there for.
    """

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.now = 1000.0 + rng.random()
        self.faults: Faults = WILD if rng.random() < 0.8 else CALM
        self.is_calm = False
        self.is_open = True
        self.events = 0
        self.counts: Counter[str] = Counter()
        self.log: deque[tuple[float, str, tuple[Any, ...]]] = deque(maxlen=80)
        self.places = Places()
        self.engine = Engine(self.places, contents=Contents())
        #: Only requests kill workers here, and only those that are made to.
        self.is_kind = self.faults is CALM
        self.payloads: dict[bytes, bytes] = {}
        self.judge = Judge(self)
        self.workers: dict[int, SimWorker] = {}
        self.jobs: dict[bytes, SimJob] = {}
        self.calls: dict[int, SimCall] = {}
        self.handlers: dict[VersionSpec, Handler] = {}
        self.arrivals_per_s = rng.choice((30.0, 300.0, 1500.0))
        self.turn_s = rng.choice((0.0, 0.0002, 0.002))
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._tie = 0
        self._decided: list[Any] = []
        self._turn_ends_at: float | None = None
        self._tick_at = float("inf")
        self._job_order = 0
        self._frontends = [b"F" + rng.randbytes(7) for _ in range(3)]
        self._job_counter = 0
        self._arm()
        for _ in range(rng.randint(2, 5)):
            self._register()
        self.after(0.0, self._arrive)
        self.after(0.5, self._manage)

    # -- time -------------------------------------------------------------------

    def after(self, delay_s: float, do: Callable[..., None], *args: Any) -> None:
        self._tie += 1
        heapq.heappush(self._agenda, (self.now + delay_s, self._tie, do, args))

    def step(self) -> None:
        at, _, do, args = heapq.heappop(self._agenda)
        self.now = max(self.now, at)
        do(*args)

    def _arm(self) -> None:
        due_at = self.engine.next_due()
        if due_at < self._tick_at:
            self._tick_at = due_at
            self.after(max(0.0, due_at - self.now), self._tick, due_at)

    def _tick(self, meant_for: float) -> None:
        if meant_for != self._tick_at:
            return  # an earlier one took its place
        self._tick_at = float("inf")
        self.tell("tick", self.engine.tick, self.now)
        self._end_turn()

    # -- turns ------------------------------------------------------------------

    def tell(self, name: str, event: Callable[..., None], *args: Any) -> None:
        """One event for the engine; its decisions are judged at once."""
        self.events += 1
        self.log.append((self.now, name, args))
        try:
            event(*args)
        finally:
            self._collect(name)

    def _collect(self, name: str) -> None:
        decided = self.engine.take_actions()
        if decided:
            for action in decided:
                self.log.append((self.now, "->", (action,)))
            self.judge.judge(decided)
            self._decided += decided
        self.judge.look(name)

    def turn(self) -> None:
        """End this turn now, or let more events join it."""
        if self._turn_ends_at is not None:
            return
        if self.turn_s and self.rng.random() < 0.3:
            self._turn_ends_at = self.now + self.turn_s
            self.after(self.turn_s, self._end_turn)
        else:
            self._end_turn()

    def _end_turn(self) -> None:
        self._turn_ends_at = None
        self.tell("dispatch", self.engine.dispatch, self.now)
        self.judge.look_at_dispatch()
        while self._decided:
            decided, self._decided = self._decided, []
            for action in decided:
                self._play(action)
        self._arm()

    # -- what the engine wants done -----------------------------------------------

    def _play(self, action: Any) -> None:
        if isinstance(action, a.Spawn):
            kind = SimManyWorker if action.spec.jobs_at_once else SimWorker
            worker = kind(
                self, action.worker_id, action.slot, action.spec, self.handlers[action.spec]
            )
            self.workers[action.worker_id] = worker
            self.tell("spawned", self.engine.worker_spawned, action.worker_id, 1)
            worker.start()
            return
        if isinstance(action, a.Release):
            del self.handlers[action.spec]
            return
        worker_id = getattr(action, "worker_id", None)
        worker_or_none = None if worker_id is None else self.workers.get(worker_id)
        if worker_or_none is None:
            return  # decided before its death in the same turn
        worker = worker_or_none
        if isinstance(action, a.SendBatch):
            for job in action.jobs:
                check(job.payload == self.payloads[job.job_id], "a payload is lost", job.job_id)
            worker.give(action.batch_id, [job.job_id for job in action.jobs])
        elif isinstance(action, a.SendLoad):
            worker.load()
        elif isinstance(action, a.SendDrop):
            worker.drop(action.job_ids)
        elif isinstance(action, a.SendLeave):
            worker.leave()
        elif isinstance(action, a.Abort):
            worker.abort()
        elif isinstance(action, a.Kill):
            worker.kill()

    # -- what workers do ------------------------------------------------------------

    def _from_worker(
        self, worker: SimWorker, name: str, event: Callable[..., None], *args: Any
    ) -> None:
        try:
            self.tell(name, event, worker.worker_id, *args, self.now)
        except (ProtocolError, AssertionError) as error:
            if type(error) is AssertionError:
                raise  # an assert of ours, not ImpossibleMove
            check(worker.lied, f"an honest worker is called a liar: {error}", worker.worker_id)
            self.counts["lies seen through"] += 1
            self.tell("lied", self.engine.worker_lied, worker.worker_id, self.now, str(error))
        self.turn()

    def hello(self, worker: SimWorker) -> None:
        self._from_worker(worker, "hello", self.engine.worker_said_hello)

    def loaded(self, worker: SimWorker) -> None:
        worker.has_loaded = True
        self.judge.note_loaded(worker.worker_id)
        self._from_worker(worker, "loaded", self.engine.worker_loaded)

    def measured(self, worker: SimWorker) -> None:
        self.tell(
            "measured",
            self.engine.worker_measured,
            worker.worker_id,
            worker.memory_bytes,
            self.now,
        )

    def load_failed(self, worker: SimWorker, failure: Failure) -> None:
        self._from_worker(worker, "load failed", self.engine.worker_load_failed, failure)

    def replied(self, worker: SimWorker, replies: list[Reply]) -> None:
        self.judge.note_replies(worker.worker_id, replies)
        self._from_worker(worker, "replied", self.engine.worker_replied, replies)

    def end_sequences(self, worker: SimWorker, names: list[str]) -> None:
        self.judge.note_ended(worker.worker_id, names)
        self._from_worker(worker, "ended", self.engine.worker_ended_sequences, names)

    def exited(self, worker: SimWorker, words: str) -> None:
        del self.workers[worker.worker_id]
        self.counts[words] += 1
        is_shot = words == "shot"
        exit_ = Exit(words, is_shot or words == "signal 9", is_shot=is_shot)
        started = self.judge.note_exit(worker.worker_id)
        self.tell("exited", self.engine.worker_exited, worker.worker_id, exit_, self.now)
        self.judge.check_exit(worker.worker_id, started)
        self.turn()

    # -- what clients do --------------------------------------------------------------

    def _arrive(self) -> None:
        if not self.is_open:
            return
        rng = self.rng
        many = rng.randint(50, 150) if rng.random() < 0.01 else 1 + int(rng.expovariate(0.7))
        for _ in range(many):
            self._submit()
        self.turn()
        pause = rng.expovariate(self.arrivals_per_s / 3)
        if rng.random() < 0.003:
            pause += 1.0
            self.arrivals_per_s = rng.choice((30.0, 300.0, 1500.0))
        self.after(pause, self._arrive)

    def _submit(self) -> None:
        rng = self.rng
        self._job_counter += 1
        job_id = rng.choice(self._frontends) + self._job_counter.to_bytes(8, "big")
        names = self.engine.registry.names()
        model = rng.choice(names) if names and rng.random() < 0.99 else "nobody"
        version = None if rng.random() < 0.7 else rng.choice("12")
        dice = rng.random()
        wait_s = rng.random() * 0.05 if dice < 0.1 else -1.0 if dice < 0.11 else 30.0
        flags = int(JobFlag.ALONE) if rng.random() < 0.02 else 0
        if rng.random() < 0.1:
            flags |= int(JobFlag.ENDS_IN_HAND)
        payload = (
            rng.choice(POISONS) if rng.random() < POISONED else b"of " + job_id + random_label(rng)
        )
        self.payloads[job_id] = payload
        job = SubmittedJob(job_id, model, version, self.now + wait_s, flags, payload)
        self._job_order += 1
        self.judge.expect_submit(job, self._job_order)
        self.tell("submit", self.engine.submit, job, self.now)
        self.judge.check_submit(job)
        if job_id in self.jobs:
            dice = rng.random()
            if dice < 0.05:
                self.after(rng.expovariate(20), self._cancel, job_id)
            elif dice < 0.08:
                self.after(rng.expovariate(50), self._send_again, job)

    def _cancel(self, job_id: bytes) -> None:
        if self.jobs.pop(job_id, None) is not None:
            self.counts["cancelled"] += 1
            self.judge.cancelled.add(job_id)
        self.tell("cancel", self.engine.cancel, job_id, self.now)
        self.turn()

    def _send_again(self, job: SubmittedJob) -> None:
        if job.job_id in self.jobs:
            self.counts["sent again"] += 1
            self.tell("submit again", self.engine.submit, job, self.now)
            self.turn()

    def _lose_frontend(self) -> None:
        gone = self._frontends.pop(0)
        self._frontends.append(b"F" + self.rng.randbytes(7))
        for job_id in [x for x in self.jobs if x.startswith(gone)]:
            del self.jobs[job_id]
            self.judge.cancelled.add(job_id)
        self.counts["frontends lost"] += 1
        self.tell("forget frontend", self.engine.forget_frontend, gone, self.now)

    # -- what operators do --------------------------------------------------------------

    def _manage(self) -> None:
        if not self.is_open:
            return
        rng = self.rng
        dice = rng.random()
        if dice < 0.4:
            self._register()
        elif dice < 0.75:
            self._scale_some()
        elif dice < 0.8:
            self._ask(self.engine.registry.set_default, rng.choice(MODELS), rng.choice("12"))
        elif dice < 0.9:
            self._unregister_some()
        else:
            self._lose_frontend()
        if rng.random() < 0.2:
            free_bytes = rng.choice((0, GIB, 3 * GIB, 64 * GIB))
            look = partial(setattr, self.engine.memory, "available_bytes")
            self.tell("memory", look, free_bytes)
        self.turn()
        self.after(rng.expovariate(1.0), self._manage)

    def _ask(self, verb: Callable[..., None], *args: Any, **options: Any) -> bool:
        """Whether the engine did it; a refusal is an answer too."""
        try:
            self.tell(verb.__name__, lambda *x: verb(*x, **options), *args)
        except StokerError as error:
            self.counts[f"{verb.__name__}: {error.code}"] += 1
            return False
        return True

    def _call(self, verb: str, key: VersionKey, wait_s: float) -> int:
        number = len(self.calls)
        self.calls[number] = call = SimCall(verb, key, self.now + wait_s)
        self.after(wait_s + 2 * SWEEP_S, self.judge.check_resolved, number, call)
        return number

    def _register(self) -> None:
        rng = self.rng
        spec = random_spec(rng, rng.choice(MODELS), rng.choice("12"))
        self.handlers[spec] = random_handler(rng)
        if not self._ask(self.engine.versions.register, spec):
            del self.handlers[spec]
            return
        low = rng.randint(0, 3)
        high = low + rng.choice((0, 0, 1, 4))
        if high:
            self.scale(spec.key, low, high, None, rng.random() < 0.5, is_registration=True)

    def scale(
        self,
        key: VersionKey,
        min_workers: int,
        max_workers: int,
        drain_s: float | None,
        is_synchronous: bool,
        *,
        is_registration: bool = False,
    ) -> None:
        wait_s = self.rng.choice((0.3, 2.0, 15.0))
        call = self._call("scale", key, wait_s) if is_synchronous else None
        done = self._ask(
            self.engine.versions.scale,
            key,
            min_workers,
            max_workers,
            self.now,
            drain_s=drain_s,
            call=call,
            wait_s=wait_s,
            is_registration=is_registration and is_synchronous,
        )
        if not done and call is not None:
            self.calls[call].is_resolved = True

    def _scale_some(self) -> None:
        rng = self.rng
        key = VersionKey(rng.choice(MODELS), rng.choice("12"))
        low = rng.choice((0, 1, 1, 2, 2, 4))
        drain_s = rng.choice((None, None, 0.0, rng.random() * 2))
        self.scale(key, low, low + rng.choice((0, 0, 2)), drain_s, rng.random() < 0.5)

    def _unregister_some(self) -> None:
        rng = self.rng
        version = None if rng.random() < 0.5 else rng.choice("12")
        self.unregister(rng.choice(MODELS), version, rng.choice((0.2, 1.0, 10.0)))

    def unregister(self, model: str, version: str | None, wait_s: float) -> None:
        try:
            key = self.engine.registry.check_removable(model, version).spec.key
        except StokerError:
            key = VersionKey(model, version or "")
        call = self._call("unregister", key, wait_s)
        if not self._ask(self.engine.versions.unregister, model, version, self.now, call, wait_s):
            self.calls[call].is_resolved = True

    def stop(self, drain_s: float) -> None:
        self.is_open = False
        self.tell("stop", self.engine.stop, self.now, drain_s)
        self.turn()
