"""In which order the requests of sequences are served."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.supervisor import actions as a
from stoker.supervisor import batching
from stoker.supervisor.sequences import SequencePolicy
from stoker.wire.frames import JobFlag


def test_a_batch_has_one_job_of_each_sequence(stage, serve, ask):
    """
    The second one needs what the first one leaves (8.7).
    """
    serve(workers=1, batch_size=4)

    first = [ask(name, ends_turn=False) for name in "xxyyz"]
    stage.end_turn()

    assert stage.sent() == [[first[0], first[2], first[4]]]
    stage.answer(stage.home_of(first[0]))
    assert stage.sent()[1:] == [[first[1], first[3]]]


def test_a_batch_ends_before_it_would_be_too_large_to_send(stage, serve, ask, monkeypatch):
    """
    One frame says what a batch is; the rest is the next one's.
    """
    monkeypatch.setattr(batching, "MAX_BATCH_BYTES", 250)
    serve(workers=1, batch_size=4)

    jobs = [ask(name, ends_turn=False, more="x" * 60) for name in "abcd"]
    stage.end_turn()
    stage.answer(stage.home_of(jobs[0]))

    assert stage.sent() == [jobs[:2], jobs[2:]]


def test_nothing_is_sent_ahead(stage, serve, ask):
    """
    A handler may end a sequence with the answer to what is in hand.
    """
    serve(workers=1)
    ask("x")
    ask("y")

    assert len(stage.sent()) == 1


def test_the_next_of_a_sequence_waits_for_the_last_whoever_left(stage, serve, ask):
    """
    The worker still works on what its client does not want any more.
    """
    serve(workers=1, batch_size=2)
    gone = ask("x")
    behind = ask("x")

    stage.cancel(gone)
    assert len(stage.sent()) == 1
    stage.answer(stage.home_of(gone))

    assert stage.sent()[1:] == [[behind]]


def test_a_batch_waits_only_for_sequences_that_could_join(stage, serve, ask):
    """
    When each that lives there is in it, nothing is gained by the delay.
    """
    serve(workers=1, batch_size=4, delay_s=0.1)
    assert len(stage.sent()) == 0
    worker_id = stage.home_of(ask("x"))
    stage.answer(worker_id)

    both = [ask("x", ends_turn=False), ask("y", ends_turn=False)]
    stage.end_turn()
    assert stage.sent()[1:] == [both]
    stage.answer(worker_id)

    alone = ask("x")
    stage.advance(0.09)
    assert [alone] not in stage.sent()
    stage.advance(0.02)
    assert [alone] in stage.sent()


def test_a_question_about_the_handler_belongs_to_no_sequence(stage, serve, ask):
    """
    A customized describe goes to whoever is free, alone, and opens nothing.
    """
    key = serve(workers=1, batch_size=4)
    body = b"ts_other\n\ndescribe\nTrue"

    question = stage.submit(body=body, flags=int(JobFlag.ALONE))

    assert stage.sent() == [[question]]
    assert len(stage.served(key).pool.sequences) == 0


def test_with_many_at_once_the_next_joins_when_the_last_has_left(stage, serve, ask):
    """
    Continuous batching and sequences together (8.7): others go on meanwhile.
    """
    serve(workers=1, jobs_at_once=3)
    first, other = ask("x"), ask("y")
    behind, third, late = ask("x"), ask("z"), ask("w")
    home = stage.home_of(first)
    assert stage.sent() == [[first], [other], [third]]

    stage.worker(home).in_hand.rotate(-1)
    stage.answer(home)
    assert stage.sent()[3:] == [[late]]
    stage.worker(home).in_hand.rotate(1)
    assert stage.worker(home).in_hand[0].jobs[0].job_id == late
    stage.answer(home)

    assert stage.sent()[4:] == []
    assert [batch.jobs[0].job_id for batch in stage.worker(home).in_hand] == [third, first]
    stage.worker(home).in_hand.rotate(1)
    stage.answer(home)
    assert stage.sent()[4:] == [[behind]]


MOVES = st.lists(
    st.one_of(
        st.tuples(
            st.just("ask"),
            st.sampled_from(["", "a", "b", "c", "d"]),
            st.booleans(),
            st.booleans(),
        ),
        st.tuples(st.just("answer"), st.integers(0, 3)),
        st.tuples(st.just("end"), st.integers(0, 3), st.sampled_from("abcd")),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("exit"), st.integers(0, 3)),
        st.tuples(st.just("load"), st.integers(0, 3)),
        st.tuples(st.just("scale"), st.integers(0, 3), st.sampled_from([None, 0.0, 1.0])),
        st.tuples(st.just("advance"), st.sampled_from([0.01, 0.3, 2.0, 6.0])),
    ),
    max_size=60,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(moves=MOVES, batch_size=st.integers(1, 3), at_once=st.sampled_from([0, 0, 1, 3]))
def test_a_sequence_is_handled_in_order_by_one_worker(
    make_stage, make_ask, moves, batch_size, at_once
):
    """
    From its first job to its end; what has no home any more is told so.
    """
    stage = make_stage()
    ask = make_ask(stage)
    policy = SequencePolicy(max_idle_s=5.0, timeout_s=20.0, max_open=4, max_waiting=2)
    key = stage.serve(workers=2, batch_size=batch_size, sequences=policy, jobs_at_once=at_once)
    asked: list[tuple[bytes, str]] = []
    homes: dict[Any, int] = {}
    for move, *details in moves:
        alive = stage.alive(key)
        chosen = alive[details[0] % len(alive)] if alive and type(details[0]) is int else None
        if move == "ask":
            name, start, end = details
            asked.append((ask(name, start=start, end=end), name))
        elif move == "answer" and chosen is not None and stage.worker(chosen).in_hand:
            runs = stage.worker(chosen).in_hand
            runs.rotate(details[0] if at_once else 0)  # in any order
            stage.answer(chosen)
        elif move == "end" and chosen is not None and stage.worker(chosen).loaded_at is not None:
            stage.engine.worker_ended_sequences(chosen, [details[1]], stage.now)
            stage.end_turn()
        elif move == "cancel" and asked:
            stage.cancel(asked[details[0] % len(asked)][0])
        elif move == "exit" and chosen is not None:
            stage.exit(chosen)
        elif move == "load" and chosen is not None:
            if stage.worker(chosen).state.value == "starting":
                stage.load(chosen)
        elif move == "scale":
            stage.scale(key, details[0], drain_s=details[1])
        elif move == "advance":
            stage.advance(details[0])
        check_sequences(stage, key, batch_size, at_once)
        for sequence in stage.served(key).pool.sequences:
            if sequence.worker_id is not None:
                assert homes.setdefault(sequence, sequence.worker_id) == sequence.worker_id
    sent: dict[str, int] = {}
    for action in stage.took(a.SendBatch):
        for job in action.jobs:
            name = stage.served(key).pool._label(job).name
            assert job.sequence > sent.get(name, -1)
            sent[name] = job.sequence


def check_sequences(stage: Any, key: Any, batch_size: int, at_once: int) -> None:
    pool = stage.served(key).pool
    sequences = pool.sequences
    assert len(sequences) <= pool.max_open + 4  # the workers may have become fewer
    waiting = [job for sequence in sequences for job in sequence.waiting]
    # Nobody waits in the queue whom no sequence knows, and the other way round.
    assert {job.job_id for job in waiting} == {job.job_id for job in pool.queue}
    homes = [set(home.sequences) for home in sequences.homes.values()]
    assert sum(map(len, homes)) == len(set().union(*homes))
    for worker_id, home in sequences.homes.items():
        for sequence in home.sequences.values():
            assert sequence.worker_id == worker_id
            numbers = [job.sequence for job in sequence.waiting]
            assert numbers == sorted(numbers)
            assert (sequence.name in home.due) == sequence.is_due
    for worker in pool.workers.values():
        assert len(worker.in_hand) <= max(1, at_once)
        names = [pool._label(job).name for batch in worker.in_hand for job in batch.jobs]
        assert len(set(names)) == len(names)
        for batch in worker.in_hand:
            assert len(batch.jobs) <= (1 if at_once else batch_size)
        home = sequences.homes.get(worker.worker_id)
        if home is not None and worker.state.value in ("ready", "busy"):
            is_full = len(worker.in_hand) >= max(1, at_once)
            is_held_up = not at_once and pool.due_at is not None
            assert not home.due or is_full or is_held_up
