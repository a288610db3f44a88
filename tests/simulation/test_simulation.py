"""Many seeded lives of the engine; see `sim_run.py` for running one again."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from sim_run import SimulationFailed, run

from stoker.supervisor import (
    batching,
    concurrent_pools,
    dispatch,
    engine,
    losses,
    pools,
    quarantine,
    queues,
    recovery,
    sequences,
    served,
    supply,
)
from stoker.supervisor.jobs import JobEvent

#: `make simulation` runs the long form: 10 million events from 100 seeds.
EVENTS = int(os.environ.get("STOKER_SIMULATION_EVENTS", "300000"))
EVENTS_PER_SEED = int(os.environ.get("STOKER_SIMULATION_EVENTS_PER_SEED", "10000"))
GROUPS = 10

SEEN: Counter[str] = Counter()

#: What the simulation is for; if it stops reaching one of these it proves less than it says.
REACHED = (
    "a piece among many",
    "a sign of life",
    "many at once",
    "Abort",
    "Kill",
    "SendDrop",
    "SendLeave",
    "answered",
    "cancelled",
    "could not be started",
    "frontends lost",
    "given back",
    "tried again",
    "Retry",
    "model autoscales",
    "handler is silent and told to stop",
    "model cannot run",
    "request is kept out",
    "request kills workers",
    "request may come again",
    "shot",
    "successor did not load",
    "worker given up",
    "worker is too large and is killed",
    "worker recycles",
    "refused: quarantined",
    "refused: sequence_closed",
    "refused: sequence_lost",
    "refused: sequence_queue_full",
    "refused: too_many_sequences",
    "sequences: ended by a handler",
    "sequences: moved, alive",
    "sequences: moved, not alive",
    "lies seen through",
    "refused: bad_handler_result",
    "refused: deadline_exceeded",
    "refused: no_worker",
    "refused: queue_full",
    "refused: shutting_down",
    "refused: unregistered",
    "refused: worker_died",
    "scale: load_failed",
    "scale: partial",
    "scale: ready",
    "sent again",
    "sent ahead",
    "unregister: unregister_timeout",
    "unregistered",
)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group", range(GROUPS))
def test_every_promise_holds_whatever_happens(group):
    """
    Crashes, hangs, lies, vanished clients and operators in a hurry, at any moment.
    """
    seeds = max(1, EVENTS // EVENTS_PER_SEED // GROUPS)
    for number in range(seeds):
        SEEN.update(run(group * 1_000_000 + number, EVENTS_PER_SEED).counts)


def test_the_simulation_reaches_what_it_is_there_for():
    """
    A promise that is never put to the test would always hold.
    """
    if not SEEN:
        pytest.skip("runs after the simulation")

    assert [name for name in REACHED if not SEEN[name]] == []


def test_the_same_seed_is_the_same_life():
    """
    Else the seed that a failure prints would be worth nothing.
    """
    first, second = run(5, 2000), run(5, 2000)

    assert first.counts == second.counts
    assert first.now == second.now


# -- does it notice? ------------------------------------------------------------


def plant_forgotten_order(monkeypatch):
    def put_back(self, jobs):
        for job in jobs:
            self.put(job)

    monkeypatch.setattr(queues.JobQueue, "put_back", put_back)


def plant_generous_credit(monkeypatch):
    monkeypatch.setattr(dispatch, "credit", lambda service_time_s, count: 3)


def plant_blind_deadlines(monkeypatch):
    def take_batch(queue, policy, now):
        size = min(len(queue), policy.max_size)
        return batching.Taken([queue.take() for _ in range(size)], [])

    monkeypatch.setattr(pools, "take_batch", take_batch)


def plant_lost_batches(monkeypatch):
    monkeypatch.setattr(queues.JobQueue, "put_back", lambda self, jobs: None)


def plant_unbounded_queue(monkeypatch):
    monkeypatch.setattr(queues.JobQueue, "room", property(lambda self: 2))


def plant_double_end(monkeypatch):
    real = pools.Pool.cancel

    def cancel(self, job):
        real(self, job)
        self._actions.append(pools.Refuse(job.job_id, self.no_worker()))

    monkeypatch.setattr(pools.Pool, "cancel", cancel)


def plant_forgotten_replacement(monkeypatch):
    monkeypatch.setattr(losses.Losses, "replace", lambda self, *args, **words: None)


def plant_late_timer(monkeypatch):
    monkeypatch.setattr(engine.Engine, "next_due", lambda self: self._swept_at + 0.25)


def plant_partial_batches_ahead(monkeypatch):
    monkeypatch.setattr(pools, "is_full", lambda queue, policy: len(queue) > 0)


def plant_unanswered_calls(monkeypatch):
    monkeypatch.setattr(served.Served, "sweep_waiters", lambda self, now: None)


def plant_kept_places(monkeypatch):
    monkeypatch.setattr(supply.Supply, "release", lambda self, worker: None)


def plant_poison_let_in(monkeypatch):
    monkeypatch.setattr(quarantine.Quarantine, "find", lambda self, job_id, payload, now: None)


def plant_company_for_suspects(monkeypatch):
    def give_back(self, again, waiting, now):
        for job in again + waiting:
            job.move(JobEvent.GIVE_BACK)
        self._queue.put_back(again + waiting)

    monkeypatch.setattr(recovery.Recovery, "_give_back", give_back)


def plant_endless_patience(monkeypatch):
    monkeypatch.setattr(pools.Pool, "_expire_in_hand", lambda self, worker, now: None)


def plant_gone_clients_that_count(monkeypatch):
    monkeypatch.setattr(pools.Pool, "cancel", lambda self, job: self._end(job, JobEvent.CANCEL))


def plant_hasty_verdicts(monkeypatch):
    monkeypatch.setattr(quarantine, "DEATHS_TO_CONVICT", 1)


def plant_answers_that_end_nothing(monkeypatch):
    real = pools.Pool._end

    def end(self, job, event):
        if event is not JobEvent.COMPLETE or job.sequence % 100:
            real(self, job, event)

    monkeypatch.setattr(pools.Pool, "_end", end)


def plant_losses_that_are_forgotten(monkeypatch):
    monkeypatch.setattr(sequences.Sequences, "is_lost", lambda self, label, now: False)


def plant_sequences_in_two_hands(monkeypatch):
    real = sequences.Sequences.take

    def take(self, sequence):
        job = real(self, sequence)
        sequence.in_hand = None
        self._note_due(sequence)
        return job

    monkeypatch.setattr(sequences.Sequences, "take", take)


def plant_the_newest_first(monkeypatch):
    real = sequences.Sequences.put

    def put(self, job, label):
        sequence = real(self, job, label)
        sequence.waiting.rotate(1)
        return sequence

    monkeypatch.setattr(sequences.Sequences, "put", put)


def plant_crowded_hands(monkeypatch):
    real = concurrent_pools.choose_roomiest
    monkeypatch.setattr(concurrent_pools, "choose_roomiest", lambda w, most: real(w, most + 1))


def plant_everlasting_patience(monkeypatch):
    monkeypatch.setattr(concurrent_pools, "PATIENCE_S", 1e6)


def plant_company_for_loners(monkeypatch):
    monkeypatch.setattr(concurrent_pools.Run, "wants_to_be_alone", False)


@pytest.mark.parametrize(
    "plant", [value for name, value in sorted(globals().items()) if name.startswith("plant_")]
)
def test_a_planted_bug_is_found(plant, monkeypatch):
    """
    A judge who never convicts proves nothing.
    """
    plant(monkeypatch)

    with pytest.raises(SimulationFailed, match=r"again: python tests/simulation/sim_run.py"):
        live_some_lives()


def live_some_lives():
    for seed in range(20):
        run(seed, 4000)
