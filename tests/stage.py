"""A stage: the engine with time as a number and workers that do as they are told."""

from __future__ import annotations

import itertools
from typing import Any

from stoker.errors import StokerError
from stoker.supervisor import actions as a
from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.deaths import Exit
from stoker.supervisor.engine import Engine
from stoker.supervisor.jobs import ImpossibleMove
from stoker.supervisor.quarantine import Content
from stoker.supervisor.served import Served
from stoker.supervisor.versions import Failure, VersionKey, VersionSpec
from stoker.supervisor.workers import Worker, WorkerState
from stoker.wire.frames import Group, Reply, SubmittedJob

FRONTEND = b"frontend"
START = 1000.0


class Places:
    """As many devices as are asked for, counted."""

    def __init__(self) -> None:
        self.placed: dict[int, VersionSpec] = {}

    def place(self, worker_id: int, spec: VersionSpec) -> int | None:
        assert worker_id not in self.placed
        self.placed[worker_id] = spec
        return None

    def keep(self, worker_id: int, spec: VersionSpec, uuids: tuple[str, ...]) -> int | None:
        return self.place(worker_id, spec)

    def release(self, worker_id: int) -> None:
        del self.placed[worker_id]


class Contents:
    """What a request says is its payload; that of one is gone."""

    def size(self, job_id: bytes, payload: bytes) -> int | None:
        return len(payload)

    def read(self, job_id: bytes, payload: bytes) -> Content | None:
        return None if payload == b"unreadable" else Content(len(payload), payload)

    def headers(self, payload: bytes) -> list[str]:
        """Those of a test about sequences, and no others."""
        return payload.decode().split("\n") if payload.startswith(b"ts_") else []


class Stage:
    """One engine, everything it ever decided, and the moves a test makes.

    Every move ends the turn: jobs are dispatched and actions taken, as the
    loop would.
    """

    def __init__(self) -> None:
        self.now = START
        self.places = Places()
        self.engine = Engine(self.places, contents=Contents())
        self.actions: list[Any] = []
        self._job_numbers = itertools.count(1)

    # -- models ---------------------------------------------------------------

    def register(
        self,
        model: str = "echo",
        version: str = "1.0",
        *,
        batch_size: int = 1,
        delay_s: float = 0.0,
        **spec: Any,
    ) -> VersionKey:
        # One attempt unless a test is about trying again.
        spec = {"max_attempts": 1, **spec}
        made = VersionSpec(model, version, batch=BatchPolicy(batch_size, delay_s), **spec)
        self.engine.versions.register(made)
        self.end_turn()
        return made.key

    def scale(
        self, key: VersionKey, min_workers: int, max_workers: int | None = None, **options: Any
    ) -> None:
        top = min_workers if max_workers is None else max_workers
        self.engine.versions.scale(key, min_workers, top, self.now, **options)
        self.end_turn()

    def serve(self, model: str = "echo", *, workers: int = 1, **spec: Any) -> VersionKey:
        """Register, start workers, and have them all loaded."""
        key = self.register(model, **spec)
        self.scale(key, workers)
        for worker_id in self.alive(key):
            if self.worker(worker_id).state is WorkerState.STARTING:
                self.load(worker_id)
        return key

    def unregister(self, key: VersionKey, call: str = "unregister", wait_s: float = 120.0) -> None:
        self.engine.versions.unregister(key.model, key.version, self.now, call, wait_s)
        self.end_turn()

    def stop(self, drain_s: float = 30.0) -> None:
        self.engine.stop(self.now, drain_s)
        self.end_turn()

    def served(self, key: VersionKey) -> Served:
        return self.engine.registry.find(*key)

    # -- jobs -----------------------------------------------------------------

    def submit(
        self,
        model: str = "echo",
        version: str | None = None,
        *,
        deadline_s: float = 60.0,
        flags: int = 0,
        job_id: bytes | None = None,
        body: bytes | None = None,
        frontend: bytes = FRONTEND,
        ends_turn: bool = True,
    ) -> bytes:
        if job_id is None:
            job_id = frontend + next(self._job_numbers).to_bytes(8, "big")
        payload = b"payload of " + job_id if body is None else body
        deadline = self.now + deadline_s
        self.engine.submit(SubmittedJob(job_id, model, version, deadline, flags, payload), self.now)
        if ends_turn:
            self.end_turn()
        return job_id

    def cancel(self, job_id: bytes) -> None:
        self.engine.cancel(job_id, self.now)
        self.end_turn()

    # -- workers --------------------------------------------------------------

    def alive(self, key: VersionKey | None = None) -> list[int]:
        """Workers that have been spawned and have not exited, in that order."""
        spawned = [x for x in self.took(a.Spawn) if key is None or x.spec.key == key]
        return [x.worker_id for x in spawned if self.engine.worker(x.worker_id) is not None]

    def worker(self, worker_id: int) -> Worker:
        worker = self.engine.worker(worker_id)
        assert worker is not None
        return worker

    def hello(self, worker_id: int) -> None:
        self.engine.worker_spawned(worker_id, 4000 + worker_id)
        self.engine.worker_said_hello(worker_id, self.now)
        self.end_turn()

    def load(self, worker_id: int) -> None:
        self.hello(worker_id)
        self.engine.worker_loaded(worker_id, self.now)
        self.end_turn()

    def fail_load(
        self, worker_id: int, last_line: str = "ImportError: no", *, is_oom: bool = False
    ) -> None:
        """Say hello, fail to load, and exit."""
        self.hello(worker_id)
        failure = Failure("It cannot load.", last_line, is_oom)
        self.engine.worker_load_failed(worker_id, failure, self.now)
        self.exit(worker_id)

    def answer(self, worker_id: int) -> list[bytes]:
        """The worker finishes the batch it works on; returns its job ids."""
        batch = self.worker(worker_id).in_hand[0]
        job_ids = [job.job_id for job in batch.jobs]
        self.reply(worker_id, Reply(batch.batch_id, True, job_ids, [Group(FRONTEND, b"answer")]))
        return job_ids

    def reply(self, worker_id: int, *replies: Reply) -> None:
        """As the loop does it: a worker that lies is killed."""
        try:
            self.engine.worker_replied(worker_id, list(replies), self.now)
        except (StokerError, ImpossibleMove) as error:
            self.engine.worker_lied(worker_id, self.now, str(error))
        self.end_turn()

    def exit(
        self,
        worker_id: int,
        words: str = "exit 1",
        *,
        is_oom: bool = False,
        is_shot: bool = False,
    ) -> None:
        self.engine.worker_exited(worker_id, Exit(words, is_oom, is_shot=is_shot), self.now)
        self.end_turn()

    def measure(self, worker_id: int, memory_bytes: int) -> None:
        self.engine.worker_measured(worker_id, memory_bytes, self.now)
        self.end_turn()

    # -- time -----------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let time pass the way the loop does: awake at every `next_due`."""
        until = self.now + seconds
        while (due_at := self.engine.next_due()) <= until:
            self.now = max(self.now, due_at)
            self.engine.tick(self.now)
            self.end_turn()
        self.now = until

    def end_turn(self) -> None:
        self.engine.dispatch(self.now)
        self.actions += self.engine.take_actions()

    # -- what was decided -----------------------------------------------------

    def took(self, kind: type) -> list[Any]:
        return [action for action in self.actions if type(action) is kind]

    def forget(self) -> None:
        """Only later actions interest from here on."""
        spawns = self.took(a.Spawn)
        self.actions = spawns

    def sent(self, worker_id: int | None = None) -> list[list[bytes]]:
        """Batches by job id, in the order of sending."""
        return [
            [job.job_id for job in batch.jobs]
            for batch in self.took(a.SendBatch)
            if worker_id in (None, batch.worker_id)
        ]

    def home_of(self, job_id: bytes) -> int:
        """The worker that got a job."""
        (worker_id,) = (
            batch.worker_id
            for batch in self.took(a.SendBatch)
            if job_id in [job.job_id for job in batch.jobs]
        )
        return int(worker_id)

    @property
    def refused(self) -> dict[bytes, str]:
        """Error code by job id."""
        return {action.job_id: action.error.code for action in self.took(a.Refuse)}

    def refusal(self, job_id: bytes) -> StokerError:
        (error,) = [x.error for x in self.took(a.Refuse) if x.job_id == job_id]
        assert isinstance(error, StokerError)
        return error

    @property
    def resolved(self) -> dict[Any, Any]:
        """Outcome, or the code of the error, by call; a call resolved twice fails the test."""
        resolved: dict[Any, Any] = {}
        for call, outcome in self.took(a.Resolve):
            assert call not in resolved
            resolved[call] = outcome.code if isinstance(outcome, StokerError) else outcome
        return resolved

    def signals(self, worker_id: int) -> list[str]:
        return [
            type(action).__name__
            for action in self.actions
            if isinstance(action, a.Abort | a.Kill) and action.worker_id == worker_id
        ]

    def notes(self, event: str) -> list[dict[str, Any]]:
        return [note.facts for note in self.took(a.Note) if note.event == event]
