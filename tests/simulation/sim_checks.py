"""What must hold, whatever happens."""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from typing import TYPE_CHECKING, Any

import sim_many as many
from sim_faults import POISONS
from sim_records import SimCall, SimJob, check
from sim_sequences import REFUSALS as SEQUENCE_REFUSALS
from sim_sequences import SequenceJudge

from stoker.errors import StokerError
from stoker.supervisor import actions as a
from stoker.supervisor.batching import is_full, ready_at
from stoker.supervisor.concurrent_pools import ConcurrentPool
from stoker.supervisor.dispatch import choose_busy, credit, deep_credit
from stoker.supervisor.engine import SWEEP_S
from stoker.supervisor.jobs import Job
from stoker.supervisor.quarantine import Content
from stoker.supervisor.served import Served
from stoker.supervisor.versions import VersionKey, VersionState
from stoker.supervisor.workers import WorkerState
from stoker.wire.frames import JobFlag, Reply, SubmittedJob

if TYPE_CHECKING:
    from sim_world import World

#: What a client may be told, and by whom.
REFUSALS = {
    "bad_handler_result",
    "deadline_exceeded",
    "model_not_found",
    "no_worker",
    "quarantined",
    "queue_full",
    "shutting_down",
    "unregistered",
    "version_not_found",
    "worker_died",
    "worker_out_of_memory",
    *SEQUENCE_REFUSALS,
}


#: Two sweeps, and a turn.
LATE_S = 2 * SWEEP_S + 0.01


def content_of(payload: bytes) -> Content:
    return Content(len(payload), payload)


class Judge:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cancelled: set[bytes] = set()
        #: Jobs whose clients were told while a worker had them in hand.
        self._told: set[bytes] = set()
        #: Workers that died with it begun, by version and content.
        self._deaths: Counter[tuple[VersionKey, bytes]] = Counter()
        #: Batches in each worker's hand, as the messages tell it.
        self._held: dict[int, deque[tuple[int, list[bytes]]]] = {}
        self._spawned: set[int] = set()
        self._exited: set[int] = set()
        self._told_to_load: set[int] = set()
        self._loaded: set[int] = set()
        self._closed: set[int] = set()
        self._signalled: dict[int, float] = {}
        self._expected: str | None = None
        self._burst: list[Job] = []
        self._sequences = SequenceJudge(world)
        #: What was said of the latest job that was refused.
        self._refused_with = ""

    # -- every action -------------------------------------------------------------

    def judge(self, decided: list[Any]) -> None:
        last_sent: dict[VersionKey, int] = {}
        self._burst = [j for x in decided if type(x) is a.SendBatch for j in x.jobs]
        for action in decided:
            kind = type(action)
            if kind is a.SendBatch:
                self._judge_batch(action, last_sent)
            elif kind is a.Forward:
                self._judge_answer(action)
            elif kind is a.Refuse:
                self._judge_refusal(action)
            elif kind is a.Resolve:
                self._judge_outcome(action)
            elif kind is a.Announce:
                self._judge_announcement(action)
            elif kind is a.Spawn:
                check(action.worker_id not in self._spawned, "a worker id is new", action)
                self._spawned.add(action.worker_id)
                self._held[action.worker_id] = deque()
                self._world.counts["spawned"] += 1
            elif kind is a.Retry:
                self._judge_retry(action)
            elif kind is a.Note:
                self._judge_note(action)
            elif kind is not a.Release:
                self._judge_word(action)
        for key, order in last_sent.items():
            served = self._find(key)
            if served is not None and (served.spec.sequences or served.spec.jobs_at_once):
                continue  # first in, first out for each sequence; loners are passed by
            oldest = served.pool.queue.oldest() if served is not None else None
            if oldest is not None:
                left = self._world.jobs[oldest.job_id].order
                check(order < left, "first in, first out", key, order, left)

    def _judge_batch(self, action: a.SendBatch, last_sent: dict[VersionKey, int]) -> None:
        world = self._world
        worker_id, batch_id, jobs = action
        self._check_open(action)
        worker = world.engine.worker(worker_id)
        assert worker is not None
        check(worker_id in self._loaded, "only a loaded worker gets work", action)
        check(jobs, "a batch has jobs", action)
        pool = jobs[0].pool
        assert pool is not None
        key = VersionKey(pool.model, pool.version)
        spec = world.engine.spec_of(worker_id)
        assert spec is not None
        most = 1 if spec.jobs_at_once else pool.policy.max_size
        check(len(jobs) <= most, "a batch keeps to its size", action)
        check(len(jobs) == 1 or not any(j.is_loner for j in jobs), "describe alone", action)
        held = self._held[worker_id]
        if spec.sequences is not None:
            check(not held, "of sequences nothing is sent ahead", action)
            self._sequences.judge_batch(spec, action)
        if spec.jobs_at_once:
            many.judge_give(world, spec, action, len(held))
        elif held:
            # At most as many waited: those that were sent in the same turn did, too.
            sent = sum(job.pool is pool for job in self._burst)
            waiting = (len(pool.queue) + sent) // pool.policy.max_size
            allowed = credit(worker.service_time_s, len(pool.workers))
            if len(held) * len(pool.workers) <= waiting:
                allowed = max(allowed, deep_credit(worker.service_time_s))
            check(len(held) < allowed, "never more than the credit", len(held), allowed)
            is_whole = len(jobs) == pool.policy.max_size or jobs[0].is_loner
            # A describe job behind it closes a batch as well as its size does.
            check(is_whole or self._describes_behind(jobs[-1]), "only full ones ahead", key)
            world.counts["sent ahead"] += 1
        for job in jobs:
            mine = world.jobs.get(job.job_id)
            check(mine is not None, "a job that has ended is not sent", job.job_id)
            assert mine is not None
            check(mine.holder is None, "a job is in one hand at a time", job.job_id)
            check(job.deadline > world.now, "an expired job is not sent", job.job_id)
            check(mine.key == key, "a job goes to its version", job.job_id)
            conviction = pool.convictions.get(content_of(job.payload))
            is_kept_out = conviction is not None and conviction.until > world.now
            check(not is_kept_out, "who kills workers reaches none", job.job_id)
            has_order = spec.sequences is None and not spec.jobs_at_once
            is_next = not has_order or mine.order > last_sent.get(key, -1)
            check(is_next, "first in, first out", job.job_id)
            mine.holder = worker_id
            last_sent[key] = mine.order
        held.append((batch_id, [job.job_id for job in jobs]))
        world.counts["batches"] += 1
        world.counts["jobs sent"] += len(jobs)

    def _describes_behind(self, last: Job) -> bool:
        """A describe job stands behind this one, or did and left in the same burst."""
        assert last.pool is not None
        return last.pool.queue.loners > 0 or any(
            job.is_loner and job.pool is last.pool and job.sequence > last.sequence
            for job in self._burst
        )

    def _judge_answer(self, action: a.Forward) -> None:
        world = self._world
        frontend_id, frame = action
        for start in range(0, len(frame), 16):
            job_id = frame[start : start + 16]
            check(job_id[:8] == frontend_id, "an answer goes to the one who asked", job_id)
            if world.jobs.pop(job_id, None) is not None:
                world.counts["answered"] += 1
            else:
                is_late = job_id in self.cancelled or job_id in self._told
                check(is_late, "a job ends once", "answer", job_id)

    def _judge_refusal(self, action: a.Refuse) -> None:
        job_id, error = action
        check(error.code in REFUSALS, "a refusal has a known code", error)
        self._refused_with = error.code
        ended = self._world.jobs.pop(job_id, None)
        check(ended is not None, "a job ends once", error.code, job_id)
        assert ended is not None
        if ended.holder is not None:
            self._told.add(job_id)
        if error.code in ("worker_died", "worker_out_of_memory"):
            self._judge_blame(ended, error)
        if error.code == "quarantined":
            self._check_deaths(ended.key, ended.payload)
        self._world.counts[f"refused: {error.code}"] += 1

    def _judge_blame(self, job: SimJob, error: StokerError) -> None:
        """Where only some requests kill, only they are told so."""
        served = self._find(job.key)
        # In a running batch a stream that has begun dies with its neighbour.
        may_not = served is None or served.spec.max_attempts == 1 or served.spec.jobs_at_once
        if self._world.is_kind and not may_not and error.details["reason"] == "exit":
            check(job.payload in POISONS, "the innocent are answered", job, error)
        check(error.details["attempts"] >= 1, "attempts are counted", error.details)

    def _check_deaths(self, key: VersionKey, payload: bytes) -> None:
        check(self._deaths[key, payload] >= 2, "convicted of two deaths", key, payload)

    def _judge_retry(self, action: a.Retry) -> None:
        mine = self._world.jobs.get(action.job_id)
        check(mine is not None, "what is tried again has not ended", action)
        assert mine is not None
        self._take_back(mine)
        self._world.counts["Retry"] += 1

    def _take_back(self, job: SimJob) -> None:
        """It waits again; the next sweep looks whether it still may."""
        job.holder = None
        job.deadline = max(job.deadline, self._world.now)

    def _judge_note(self, action: a.Note) -> None:
        facts = action.facts
        self._world.counts[action.event] += 1
        if action.event == "request kills workers" and facts["content"]:
            key = VersionKey(facts["model"], facts["version"])
            self._check_deaths(key, bytes.fromhex(facts["content"]))

    def _judge_announcement(self, action: a.Announce) -> None:
        model, version, is_default = action.queue[:3]
        served = self._find(VersionKey(model, version))
        check(served is not None, "a full queue is one that is there", action)
        assert served is not None
        room = served.pool.queue.room
        check(room <= 0, "a queue said to be full has no room", room, action)
        default = self._world.engine.registry.default_version(model)
        check(is_default == (default == version), "the default version is told", default)
        self._world.counts["announced full"] += 1

    def _judge_word(self, action: Any) -> None:
        """Load, drop, leave, abort, kill: only to a worker that is there, in a sensible order."""
        worker_id = action.worker_id
        kind = type(action).__name__
        world = self._world
        check(world.engine.worker(worker_id) is not None, "no word to a gone worker", action)
        if kind == "SendLoad":
            check(worker_id not in self._told_to_load, "told to load once", action)
            self._told_to_load.add(worker_id)
        elif kind == "SendLeave":
            self._check_open(action)
            self._closed.add(worker_id)
        elif kind == "Abort":
            check(worker_id not in self._signalled, "an abort comes first and once", action)
            self._closed.add(worker_id)
            self._signalled[worker_id] = world.now
        elif kind == "Kill":
            self._closed.add(worker_id)
            self._signalled[worker_id] = world.now
        world.counts[kind] += 1

    def _check_open(self, action: Any) -> None:
        check(action.worker_id not in self._closed, "nothing more for who must go", action)

    def _judge_outcome(self, action: a.Resolve) -> None:
        world = self._world
        call = world.calls[action.call]
        check(not call.is_resolved, "a call is answered once", call)
        call.is_resolved = True
        outcome = action.outcome
        if isinstance(outcome, StokerError):
            world.counts[f"{call.verb}: {outcome.code}"] += 1
            if outcome.code == "unregister_timeout":
                check(world.now >= call.until, "no timeout before its time", call)
        elif call.verb == "unregister":
            world.counts["unregistered"] += 1
        else:
            world.counts[f"scale: {outcome['outcome']}"] += 1
            if outcome["outcome"] == "partial":
                check(world.now >= call.until, "partial only when time is up", call)

    def check_resolved(self, number: int, call: SimCall) -> None:
        check(call.is_resolved, "a call is answered within its limit", number, call)

    # -- events ---------------------------------------------------------------------

    def expect_submit(self, job: SubmittedJob, order: int) -> None:
        """Work out what must become of a submitted job, before the engine is told."""
        world = self._world
        engine = world.engine
        self._refused_with = ""
        self._expected, key, deadline = None, VersionKey(job.model, ""), job.deadline
        ends_in_hand = bool(job.flags & JobFlag.ENDS_IN_HAND)
        try:
            served = engine.registry.find(job.model, job.version)
        except StokerError as error:
            self._expected = error.code
        else:
            key = served.spec.key
            if not served.crew.is_asleep and not any(
                not s.is_given_up for s in served.crew.slots if not s.is_retiring
            ):
                self._expected = "no_worker"
            elif self._is_convicted(served, job.payload):
                self._expected = "quarantined"
            elif served.pool.queue.pending >= served.pool.queue.capacity:
                self._expected = "queue_full"
            client_timeout_s = served.spec.client_timeout_s
            if client_timeout_s and world.now + client_timeout_s < deadline:
                deadline, ends_in_hand = world.now + client_timeout_s, True
        if engine.is_stopping:
            self._expected = "shutting_down"
        world.jobs[job.job_id] = SimJob(
            order, key, max(world.now, deadline), job.payload, ends_in_hand=ends_in_hand
        )

    def _is_convicted(self, served: Served, payload: bytes) -> bool:
        conviction = served.pool.convictions.get(content_of(payload))
        return conviction is not None and conviction.until > self._world.now

    def check_submit(self, job: SubmittedJob) -> None:
        was_refused = job.job_id not in self._world.jobs
        if self._refused_with in SEQUENCE_REFUSALS or self._is_of_leaving(job):
            return
        check(was_refused == bool(self._expected), "refused at once or kept", self._expected, job)

    def _is_of_leaving(self, job: SubmittedJob) -> bool:
        """Workers that leave still serve the sequences that live in them, and no others."""
        try:
            served = self._world.engine.registry.find(job.model, job.version)
        except StokerError:
            return False
        return served.spec.sequences is not None and self._expected == "no_worker"

    def note_ended(self, worker_id: int, names: list[str]) -> None:
        """A handler ends these sequences."""
        spec = self._world.engine.spec_of(worker_id)
        if spec is not None:
            self._sequences.note_ended(spec, worker_id, names)

    def note_loaded(self, worker_id: int) -> None:
        if worker_id in self._told_to_load:
            self._loaded.add(worker_id)

    def note_replies(self, worker_id: int, replies: list[Reply]) -> None:
        """Before the engine sees them: which batches are done."""
        held = self._held.get(worker_id)
        if held is None or worker_id in self._exited:
            return
        spec = self._world.engine.spec_of(worker_id)
        for reply in replies:
            if spec is not None and spec.jobs_at_once:
                if reply.is_last:
                    many.take_done(held, reply)
                continue
            if not held or held[0][0] != reply.batch_id:
                return
            if reply.is_last:
                _, job_ids = held.popleft()
                if spec is not None and spec.sequences is not None:
                    self._sequences.note_done(spec, job_ids)

    def note_exit(self, worker_id: int) -> list[bytes]:
        """Returns the jobs that the worker had started."""
        check(worker_id not in self._exited, "a worker exits once", worker_id)
        self._exited.add(worker_id)
        self._sequences.note_exit(worker_id)
        held = self._held.pop(worker_id)
        spec = self._world.engine.spec_of(worker_id)
        started = held.popleft()[1] if held else []
        while held and spec is not None and spec.jobs_at_once:
            started += held.popleft()[1]
        self._note_deaths(worker_id, started)
        for job_id in (*started, *(job_id for _, job_ids in held for job_id in job_ids)):
            job = self._world.jobs.get(job_id)
            if job is not None and job.holder == worker_id:
                self._take_back(job)
                if job_id not in started:
                    self._world.counts["given back"] += 1
        return started

    def _note_deaths(self, worker_id: int, started: list[bytes]) -> None:
        served = self._world.engine._workers[worker_id][0]
        for job_id in started:
            self._deaths[served.spec.key, self._world.payloads[job_id]] += 1
            job = self._world.jobs.get(job_id)
            if job is not None:
                job.deaths += 1
                allowed = served.spec.max_attempts
                check(job.deaths <= allowed, "no request kills more than it may", job, allowed)

    def check_exit(self, worker_id: int, started: list[bytes]) -> None:
        for job_id in started:
            job = self._world.engine._jobs.get(job_id)
            if job is None:
                continue
            assert job.pool is not None
            allowed = job.pool.recovery._max_attempts
            check(0 < job.attempts < allowed, "tried as often as allowed", job_id)
            is_alone = job.is_loner or isinstance(job.pool, ConcurrentPool)
            check(is_alone and job.is_suspect, "who saw a death travels alone", job_id)
            self._world.counts["tried again"] += 1
        check(self._world.engine.worker(worker_id) is None, "a gone worker is forgotten")

    # -- after every event ------------------------------------------------------------

    def look(self, name: str) -> None:
        """Cheap enough for every event; now and then everything."""
        world = self._world
        engine = world.engine
        check(engine.job_count == len(world.jobs), "every job ends exactly once", name)
        if world.events % 16 == 0:
            for served in self._all():
                self._look_at_queue(served)
                self._look_at_bounds(served)
                if served.spec.sequences is not None:
                    self._sequences.look(served)
                successors = sum(slot.replaces is not None for slot in served.crew.slots)
                check(successors <= 1, "one worker at a time is recycled", successors)
            self._look_at_deadlines()
            held = sum(len(job.payload) for job in world.jobs.values())
            counted = sum(served.pool.payload_bytes for served in self._all())
            taken = engine._budget.taken_bytes
            check(held == counted == taken, "payloads are counted", held, counted)

    def _look_at_bounds(self, served: Served) -> None:
        """Load moves the number of workers, but not beyond what the operator said."""
        crew = served.crew
        if served.is_leaving or served.state is VersionState.REGISTERED:
            return
        low, high, count = crew.min_workers, crew.max_workers, len(crew.slots.staying)
        check(low <= count <= high, "as many workers as may be", low, count, high)
        if served.autoscaler is None:
            check(low == high, "a range of workers is scaled", low, high)
        else:
            wanted = served.autoscaler.wanted
            check(low <= wanted <= high, "as many are wanted as may be", low, wanted, high)

    def _look_at_deadlines(self) -> None:
        """Nobody waits longer than a sweep or two beyond a deadline."""
        world = self._world
        for job_id, mine in world.jobs.items():
            if mine.deadline + LATE_S > world.now:
                continue
            check(mine.holder is not None, "nobody is queued past a deadline", job_id)
            assert mine.holder is not None
            worker = world.engine.worker(mine.holder)
            assert worker is not None
            spec = world.engine.spec_of(mine.holder)
            assert spec is not None
            begun = list(worker.in_hand)[: None if spec.jobs_at_once else 1]
            its = [batch for batch in begun if job_id in [job.job_id for job in batch.jobs]]
            check(its, "nobody waits in a hand past a deadline", job_id)
            is_wanted = not mine.ends_in_hand or its[0].has_sent_pieces
            check(is_wanted, "a client's own deadline holds in a hand", job_id)

    def look_at_dispatch(self) -> None:
        """At the end of a turn nobody waits for nothing."""
        world = self._world
        next_due = world.engine.next_due()
        for served in world.engine.registry:
            pool = served.pool
            if served.spec.sequences is not None:
                self._sequences.look_at_dispatch(served)
                continue
            if served.spec.jobs_at_once:
                many.look_at_dispatch(world, served)
                continue
            due_at = ready_at(pool.queue, pool.policy)
            if due_at is None:
                continue
            workers = pool.workers.values()
            if any(worker.state is WorkerState.READY for worker in workers):
                check(next_due <= due_at, "a free worker does not wait for due work", due_at)
            elif is_full(pool.queue, pool.policy) and not pool.recovery.suspects:
                waiting = len(pool.queue) // pool.policy.max_size
                chosen = choose_busy(workers, len(workers), waiting)
                check(chosen is None, "credit is used", pool.model)

    def _look_at_queue(self, served: Served) -> None:
        queue = served.pool.queue
        ahead = sum(
            batch.waiting
            for worker in served.pool.workers.values()
            for batch in islice(worker.in_hand, 1, None)
            if not served.spec.jobs_at_once
        )
        check(queue.ahead == ahead, "ahead is what was sent ahead", queue.ahead, ahead)
        again = sum(job.attempts > 0 for job in queue)
        bound = queue.capacity + again  # what a dead worker had started was admitted once
        # That of a version with sequences changes with its workers; see `sim_sequences`.
        is_kept = queue.pending <= bound or served.spec.sequences is not None
        check(is_kept, "the queue keeps its bound", queue.pending, bound)
        held = [j for w in served.pool.workers.values() for b in w.in_hand for j in b.jobs]
        suspects = sum(j.is_suspect and not j.has_ended for j in (*queue, *held))
        check(served.pool.recovery.suspects == suspects, "suspects are counted", suspects)
        orders = [self._world.jobs[job.job_id].order for job in queue]
        check(orders == sorted(orders), "the queue is in order of arrival", orders)
        check(queue.loners == sum(job.is_loner for job in queue), "loners are counted")

    def _all(self) -> list[Served]:
        engine = self._world.engine
        return [*engine.registry, *engine.versions.leaving]

    def _find(self, key: VersionKey) -> Served | None:
        for served in self._world.engine.registry:
            if served.spec.key == key:
                return served
        return None

    # -- at the end ---------------------------------------------------------------------

    def check_calm(self) -> None:
        """Nothing pends, and every wanted worker is there."""
        world = self._world
        check(not world.jobs, "at rest no client waits", len(world.jobs))
        for served in world.engine.registry:
            crew = served.crew
            states = [s.worker.state.value if s.worker else "none" for s in crew.slots]
            check(crew.is_settled, "a calm system has its workers", served.spec.key, states)
            check(len(crew.slots.staying) >= crew.min_workers, "and as many as wanted", states)
            check(not len(served.pool.queue) and not served.pool.queue.ahead, "and idle", states)
            check(not served.waiters, "and nobody waits for them", served.waiters)

    def check_empty(self) -> None:
        """After everything was unregistered or stopped, no trace is left."""
        world = self._world
        engine = world.engine
        engine.dispatch(world.now)
        leaving = engine.versions.leaving
        left = (engine._jobs, engine._workers, leaving, engine._due, engine._touched)
        check(not any(left), "nothing is kept", left)
        check(not list(engine.registry), "no version is kept")
        check(not world.places.placed, "every device is free again", world.places.placed)
        check(not world.workers, "no process is left", world.workers)
        check(self._spawned == self._exited, "every worker exits once")
        check(all(call.is_resolved for call in world.calls.values()), "no call waits")
        check(not world.handlers, "every version was released", len(world.handlers))
        check(not engine.take_actions(), "and nothing is left to do")
