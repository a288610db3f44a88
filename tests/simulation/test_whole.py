"""Many seeded lives of a whole server; see `whole_run.py` for running one again."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from whole_run import SimulationFailed, run

from stoker.supervisor.inheritance import Inheritance
from stoker.supervisor.sequences import Sequences
from stoker.supervisor.supply import Supply
from stoker.wire.frames import Answers
from stoker.wire.link import Link
from stoker.worker.sequences import LivingSequences

#: `make simulation` runs the long form: 10 million events from 100 seeds.
EVENTS = int(os.environ.get("STOKER_SIMULATION_EVENTS", "300000"))
EVENTS_PER_SEED = int(os.environ.get("STOKER_SIMULATION_EVENTS_PER_SEED", "15000"))
GROUPS = 10

SEEN: Counter[str] = Counter()

#: What the simulation is for; if it stops reaching one of these it proves less than it says.
REACHED = (
    "adopted",
    "answered",
    "answers gather",
    "begun again",
    "came back",
    "client left",
    "frames lost",
    "frontend killed",
    "meant for the predecessor",
    "orphan found nobody",
    "request kills workers",
    "scaled with the load",
    "sequence goes on",
    "sequence goes on after a death",
    "sequence moved",
    "supervisor killed",
    "told: deadline_exceeded",
    "told: queue_full",
    "told: sequence_closed",
    "told: sequence_lost",
    "told: worker_died",
    "worker: signal 9",
    "worker: signal 11",
)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group", range(GROUPS))
def test_every_client_hears_one_end_whoever_dies(group):
    """
    Supervisors, frontends and workers killed at any moment, with what was on its way.
    """
    seeds = max(1, EVENTS // EVENTS_PER_SEED // GROUPS)
    for number in range(seeds):
        SEEN.update(run(group * 1_000_000 + number, EVENTS_PER_SEED).counts)


def test_the_simulation_of_the_whole_reaches_what_it_is_there_for():
    """
    A promise that is never put to the test would always hold.
    """
    if not SEEN:
        pytest.skip("runs after the simulation")

    assert [name for name in REACHED if not SEEN[name]] == []


def test_the_same_seed_is_the_same_life_of_a_whole_server():
    """
    Else the seed that a failure prints would be worth nothing.
    """
    first, second = run(5, 5000), run(5, 5000)

    assert first.counts == second.counts
    assert first.agenda.now == second.agenda.now


# -- does it notice? ------------------------------------------------------------


def plant_jobs_that_are_not_sent_again(monkeypatch):
    monkeypatch.setattr(Link, "_send_again", lambda self: None)


def plant_orphans_that_are_left_alone(monkeypatch):
    monkeypatch.setattr(Supply, "inherit", lambda self, now, *, is_grouped: None)
    monkeypatch.setattr("whole_supervisor.WholeSupervisor._serve", serve_and_forget)


def serve_and_forget(self):
    self._is_serving = True
    self._tick()


def plant_answers_that_are_begun_again(monkeypatch):
    monkeypatch.setattr(Inheritance, "is_answered", lambda self, job_id: False)


def plant_deaths_that_are_forgotten(monkeypatch):
    monkeypatch.setattr("whole_supervisor.LATELY_S", 0.0)


def plant_jobs_that_stay_parked(monkeypatch):
    monkeypatch.setattr("stoker.supervisor.engine.Engine._unpark", lambda self, now: None)


def plant_answers_to_anybody(monkeypatch):
    monkeypatch.setattr(
        "whole_supervisor.WholeSupervisor._forward",
        lambda self, _, frame: [
            self._answer(identity, Answers([frame])) for identity in self._greeted
        ],
    )


def plant_sequences_that_workers_keep_to_themselves(monkeypatch):
    monkeypatch.setattr(LivingSequences, "rows", lambda self, now: [])


def plant_sequences_that_died_unseen(monkeypatch):
    monkeypatch.setattr(Sequences, "doubt", lambda self: None)


@pytest.mark.parametrize(
    "plant", [value for name, value in sorted(globals().items()) if name.startswith("plant_")]
)
def test_a_planted_bug_of_the_whole_is_found(plant, monkeypatch):
    """
    A judge who never convicts proves nothing.
    """
    plant(monkeypatch)

    with pytest.raises(SimulationFailed, match=r"again: python tests/simulation/whole_run.py"):
        live_some_lives()


def live_some_lives():
    for seed in range(20):
        run(seed, 8000)
