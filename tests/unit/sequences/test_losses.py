"""What becomes of sequences when a worker or the supervisor dies."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.supervisor.orphans import Orphan, Orphans
from stoker.supervisor.sequences import KnownSequence
from stoker.wire.frames import JobFlag


def test_a_dead_workers_sequences_are_lost_and_said_to_be(stage, serve, ask):
    """
    The other worker would answer, without what had been said before.
    """
    key = serve()
    homes = {name: stage.home_of(ask(name)) for name in "xy"}
    for home in homes.values():
        stage.answer(home)
    in_hand, waiting = ask("x"), ask("x")

    stage.exit(homes["x"], "SIGKILL")
    late, other = ask("x"), ask("y")

    assert stage.refused == {
        in_hand: "worker_died",
        waiting: "sequence_lost",
        late: "sequence_lost",
    }
    assert stage.home_of(other) == homes["y"]
    assert stage.served(key).pool.sequences.lost_count == 1


def test_a_lost_sequence_may_be_started_anew(stage, serve, ask):
    """
    Its client knows then that nothing is left of the old one.
    """
    serve()
    home = stage.home_of(ask("x"))
    stage.answer(home)
    stage.exit(home)

    again = ask("x", start=True)
    assert stage.home_of(again) != home
    stage.answer(stage.home_of(again))

    assert stage.home_of(ask("x")) == stage.home_of(again)


def test_a_start_that_was_never_handled_starts_nothing(stage, serve, ask):
    """
    Its client left, or gave up; what comes behind it still needs what is lost.
    """
    serve(workers=1)
    home = stage.home_of(ask("x"))
    stage.answer(home)
    stage.exit(home)
    start, behind = ask("x", start=True), ask("x")

    stage.cancel(start)
    (fresh,) = stage.alive()
    stage.load(fresh)

    assert stage.refused == {behind: "sequence_lost"}
    late = ask("x")
    assert stage.refused[late] == "sequence_lost"


def test_a_loss_is_forgotten_when_the_sequence_would_have_ended_anyhow(stage, serve, ask):
    """
    Names are not kept for ever.
    """
    serve()
    home = stage.home_of(ask("x"))
    stage.answer(home)
    stage.exit(home)
    stage.advance(11.0)

    ask("x")

    assert not stage.refused


def test_a_sequence_that_had_no_state_yet_is_not_lost(stage, serve, ask):
    """
    Its first request failed with the worker, and may be sent once more.
    """
    serve()
    first = ask("x")
    stage.exit(stage.home_of(first))

    ask("x")

    assert stage.refused == {first: "worker_died"}


def test_what_is_in_the_hand_of_a_worker_that_must_go_may_still_be_answered(stage, serve, ask):
    """
    Then there was a state, and it is gone.
    """
    key = serve(workers=1)
    first = ask("x")
    home = stage.home_of(first)

    stage.scale(key, 1, drain_s=0.0)
    stage.engine.worker_lied(home, stage.now, "it is killed")
    stage.answer(home)
    late = ask("x")

    assert stage.refused == {late: "sequence_lost"}


@pytest.fixture
def succeed(stage, policy):
    """Two workers of a dead supervisor, on their way back."""

    def succeed(dead: int = 0, **spec: Any):
        orphans = Orphans(
            lambda spec: spec.model,
            [("echo", Orphan(number, 9000 + number, 5000 + number)) for number in (1, 2)],
            ["echo"] * dead,
        )
        stage.engine.numbers.inherit(orphans, 2, 9002)
        key = stage.register(sequences=policy, **spec)
        stage.scale(key, 2)
        return key

    return succeed


def came_back(stage, worker_id: int, *known: str, quiet_since: float = 990.0) -> None:
    sequences = [KnownSequence(name, 980.0, quiet_since) for name in known]
    stage.engine.worker_came_back(worker_id, [], stage.now, sequences)
    stage.end_turn()


def test_a_successor_learns_from_the_workers_where_sequences_live(stage, succeed, ask):
    """
    It waits for all of them: the one that is still missing may be the one.
    """
    key = succeed()
    jobs = {name: ask(name) for name in "xy"}
    came_back(stage, 1, "x")
    assert not stage.sent()

    came_back(stage, 2, "y")

    assert {name: stage.home_of(job_id) for name, job_id in jobs.items()} == {"x": 1, "y": 2}
    assert [stage.served(key).pool.sequence_count(number) for number in (1, 2)] == [1, 1]


def test_after_a_supervisors_death_the_older_request_comes_first(stage, succeed, ask):
    """
    It was let in before, and is only said again later than the new one.
    """
    succeed()
    new = ask("x")
    again = ask("x", flags=int(JobFlag.SENT_AGAIN))

    came_back(stage, 1, "x")
    came_back(stage, 2)
    stage.answer(1)

    assert stage.sent(1) == [[again], [new]]


def test_a_sequence_that_two_claim_lives_where_it_was_last(stage, succeed, ask):
    """
    It was closed and opened again, elsewhere.
    """
    succeed()
    job_id = ask("x")
    came_back(stage, 1, "x", quiet_since=995.0)
    came_back(stage, 2, "x", quiet_since=992.0)

    assert stage.home_of(job_id) == 1


def test_where_a_worker_did_not_come_back_no_unknown_name_is_new(stage, succeed, ask):
    """
    It may be that of a sequence which died with that worker.
    """
    succeed()
    unknown, new = ask("x"), ask("y", start=True)
    came_back(stage, 1, "z")
    stage.exit(2)

    assert stage.refused == {unknown: "sequence_lost"}
    assert stage.home_of(new) == 1
    stage.answer(1)
    assert stage.home_of(ask("z")) == 1
    stage.answer(1)
    stage.advance(11.0)
    assert stage.home_of(ask("x")) == 1


def test_nor_where_one_died_with_the_supervisor(stage, succeed, ask):
    """
    Nobody is left who could say what lived in it.
    """
    succeed(dead=1)
    came_back(stage, 1, "z")
    came_back(stage, 2)

    unknown = ask("x")

    assert stage.refused == {unknown: "sequence_lost"}
