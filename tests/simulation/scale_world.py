"""The engine with one version that scales itself, workers that take their time, and a load.

Everything but the processes is real: queue, batching, dispatch, tally, crew and
autoscaler.  What clients waited and how many workers there were is recorded.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from load_shapes import Shape

from stoker.supervisor import actions as a
from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.deaths import Exit
from stoker.supervisor.engine import Engine
from stoker.supervisor.versions import VersionKey, VersionSpec
from stoker.wire.frames import Group, Reply, SubmittedJob

FRONTEND = b"frontend"
KEY = VersionKey("model", "1")
#: After the last request, until everything must be back at the minimum.
REST_S = 200.0


@dataclass(frozen=True)
class Model:
    """How the workers of the one version behave.

    Attributes:
        fixed_s, each_s: A batch takes `fixed_s + size * each_s`, on average.
        spread: Sigma of its logarithm.
        start_s: From the start of a worker until it is ready, on average.
        dies_every_s: How often one of the workers dies, on average; 0: never.
    """

    fixed_s: float = 0.0
    each_s: float = 0.1
    spread: float = 0.3
    start_s: float = 3.0
    batch_size: int = 1
    delay_s: float = 0.0
    low: int = 1
    high: int = 8
    max_idle_s: float = 60.0
    target_s: float = 0.25
    queue_capacity: int = 1000
    worker_bytes: int = 0
    dies_every_s: float = 0.0
    deadline_s: float = 60.0


@dataclass
class Second:
    """What one second of a run was like."""

    asked: int = 0
    workers: int = 0
    ready: int = 0
    wanted: int = 0
    queued: int = 0


@dataclass
class Run:
    """What happened.

    Attributes:
        waits: (arrived, waited) of every request that a worker began.
        changes: (when, from, to, why).
        refused: Requests that were not served, by error code.
    """

    shape: Shape
    model: Model
    waits: list[tuple[float, float]] = field(default_factory=list)
    changes: list[tuple[float, int, int, str]] = field(default_factory=list)
    seconds: list[Second] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    asked: int = 0
    deaths: int = 0

    def wait_p99_s(self, but_s: float = 0.0, since: float = 0.0) -> float:
        """Of all requests but those that came within `but_s` of a jump."""
        jumps = sorted(self.shape.jumps)

        def counts(at: float) -> bool:
            latest = bisect_right(jumps, at) - 1
            return at >= since and (latest < 0 or at - jumps[latest] >= but_s)

        waits = sorted(waited for at, waited in self.waits if counts(at))
        return waits[int(len(waits) * 0.99)] if waits else 0.0

    def reversals(self, since: float = 0.0) -> list[float]:
        """When a change undid the direction of the one before."""
        found, last = [], 0
        for at, old, new, _ in self.changes:
            if at < since:
                continue
            direction = 1 if new > old else -1
            if last and direction != last:
                found.append(at)
            last = direction
        return found


class Places:
    def place(self, worker_id: int, spec: VersionSpec) -> int | None:
        return None

    def release(self, worker_id: int) -> None:
        pass


class _Worker:
    def __init__(self) -> None:
        self.batches: deque[tuple[int, list[bytes]]] = deque()
        self.is_leaving = False
        self.is_dead = False
        self.is_busy = False


class ScaleWorld:
    """Plays one shape against one model."""

    def __init__(self, seed: int, shape: Shape, model: Model, free_bytes: int = 0) -> None:
        self.run = Run(shape, model)
        self.rng = random.Random(seed)
        self.now = 0.0
        self.engine = Engine(Places())
        self._free_bytes = free_bytes
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._tie = 0
        self._workers: dict[int, _Worker] = {}
        self._arrived: dict[bytes, float] = {}
        self._jobs = 0
        self._tick_at = float("inf")
        self._asked_this_second = 0
        batch = BatchPolicy(model.batch_size, model.delay_s)
        spec = VersionSpec(
            *KEY,
            batch=batch,
            queue_capacity=model.queue_capacity,
            max_idle_s=model.max_idle_s,
            queue_wait_target_s=model.target_s,
            max_attempts=3,
        )
        self._tell_memory()
        self.engine.versions.register(spec)
        self.engine.versions.scale(KEY, model.low, model.high, self.now)
        self._after(0.0, self._arrive)
        self._after(1.0, self._record)
        if model.dies_every_s:
            self._after(self.rng.expovariate(1 / model.dies_every_s), self._kill_one)
        self._end_turn()

    def play(self) -> Run:
        until = self.run.shape.quiet_s + REST_S
        while self._agenda and self.now < until:
            at, _, do, args = heapq.heappop(self._agenda)
            self.now = max(self.now, at)
            do(*args)
        return self.run

    def _after(self, delay_s: float, do: Callable[..., None], *args: Any) -> None:
        self._tie += 1
        heapq.heappush(self._agenda, (self.now + delay_s, self._tie, do, args))

    # -- load -------------------------------------------------------------------

    def _arrive(self) -> None:
        """Thinning: candidates at the highest rate, each taken with the chance of the actual."""
        shape, rng = self.run.shape, self.rng
        if rng.random() * shape.highest_per_s < shape.at(self.now):
            self._jobs += 1
            job_id = FRONTEND + self._jobs.to_bytes(8, "big")
            self._arrived[job_id] = self.now
            self.run.asked += 1
            self._asked_this_second += 1
            deadline = self.now + self.run.model.deadline_s
            job = SubmittedJob(job_id, KEY.model, None, deadline, 0, b"")
            self.engine.submit(job, self.now)
            self._end_turn()
        if self.now < shape.quiet_s:
            self._after(rng.expovariate(shape.highest_per_s), self._arrive)

    # -- the loop's part ----------------------------------------------------------

    def _end_turn(self) -> None:
        self.engine.dispatch(self.now)
        while actions := self.engine.take_actions():
            for action in actions:
                self._play(action)
        due_at = self.engine.next_due()
        if due_at < self._tick_at:
            self._tick_at = due_at
            self._after(max(0.0, due_at - self.now), self._tick, due_at)

    def _tick(self, meant_for: float) -> None:
        if meant_for == self._tick_at:
            self._tick_at = float("inf")
            self.engine.tick(self.now)
            self._end_turn()

    def _play(self, action: Any) -> None:
        if isinstance(action, a.Spawn):
            self._workers[action.worker_id] = _Worker()
            self.engine.worker_spawned(action.worker_id, 1)
            self._after(0.01, self._hello, action.worker_id)
            self._tell_memory()
        elif isinstance(action, a.SendBatch):
            worker = self._workers[action.worker_id]
            worker.batches.append((action.batch_id, [job.job_id for job in action.jobs]))
            self._begin(action.worker_id)
        elif isinstance(action, a.SendLeave):
            self._workers[action.worker_id].is_leaving = True
            self._begin(action.worker_id)
        elif isinstance(action, a.Kill | a.Abort):
            self._after(0.01, self._exit, action.worker_id)
        elif isinstance(action, a.Refuse):
            self._arrived.pop(action.job_id, None)
            self.run.refused[action.error.code] += 1
        elif isinstance(action, a.Note) and action.event == "model autoscales":
            facts = action.facts
            if facts["workers"] != facts["wanted"]:
                change = (self.now, facts["workers"], facts["wanted"], facts["why"])
                self.run.changes.append(change)

    # -- workers --------------------------------------------------------------------

    def _hello(self, worker_id: int) -> None:
        if worker_id in self._workers:
            self.engine.worker_said_hello(worker_id, self.now)
            self._end_turn()
            took_s = self.run.model.start_s * self.rng.lognormvariate(0.0, 0.2)
            self._after(took_s, self._loaded, worker_id)

    def _loaded(self, worker_id: int) -> None:
        if worker_id in self._workers:
            self.engine.worker_loaded(worker_id, self.now)
            if self.run.model.worker_bytes:
                self.engine.worker_measured(worker_id, self.run.model.worker_bytes, self.now)
            self._tell_memory()
            self._end_turn()

    def _begin(self, worker_id: int) -> None:
        worker, model = self._workers[worker_id], self.run.model
        if worker.is_busy:
            return
        if not worker.batches:
            if worker.is_leaving:
                self._after(0.01, self._exit, worker_id)
            return
        worker.is_busy = True
        batch_id, job_ids = worker.batches.popleft()
        for job_id in job_ids:
            arrived = self._arrived.get(job_id, self.now)
            self.run.waits.append((arrived, self.now - arrived))
        mean_s = model.fixed_s + model.each_s * len(job_ids)
        took_s = mean_s * self.rng.lognormvariate(-(model.spread**2) / 2, model.spread)
        self._after(took_s, self._finish, worker_id, batch_id, job_ids)

    def _finish(self, worker_id: int, batch_id: int, job_ids: list[bytes]) -> None:
        worker = self._workers.get(worker_id)
        if worker is None:
            return
        worker.is_busy = False
        for job_id in job_ids:
            self.run.answered += self._arrived.pop(job_id, None) is not None
        reply = Reply(batch_id, True, job_ids, [Group(FRONTEND, b"")])
        self.engine.worker_replied(worker_id, [reply], self.now)
        self._end_turn()
        if worker_id in self._workers:
            self._begin(worker_id)

    def _exit(self, worker_id: int, words: str = "exit 0") -> None:
        if self._workers.pop(worker_id, None) is not None:
            self.engine.worker_exited(worker_id, Exit(words, is_shot=words == "shot"), self.now)
            self._tell_memory()
            self._end_turn()

    def _kill_one(self) -> None:
        if self._workers and self.now < self.run.shape.quiet_s:
            self.run.deaths += 1
            self._exit(self.rng.choice(list(self._workers)), "shot")
        self._after(self.rng.expovariate(1 / self.run.model.dies_every_s), self._kill_one)

    def _tell_memory(self) -> None:
        if self._free_bytes:
            taken = len(self._workers) * self.run.model.worker_bytes
            self.engine.memory.available_bytes = max(0, self._free_bytes - taken)

    # -- what is recorded -------------------------------------------------------------

    def _record(self) -> None:
        served = self.engine.registry.find(*KEY)
        staying = served.crew.slots.staying
        autoscaler = served.autoscaler
        assert autoscaler is not None
        self.run.seconds.append(
            Second(
                self._asked_this_second,
                len(staying),
                sum(slot.is_ready for slot in staying),
                autoscaler.wanted,
                len(served.pool.queue),
            )
        )
        self._asked_this_second = 0
        self._after(1.0, self._record)


def play(seed: int, shape: Shape, model: Model, free_bytes: int = 0) -> Run:
    return ScaleWorld(seed, shape, model, free_bytes).play()
