"""Sequences: where each lives, in which order it is served, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.errors import ProtocolError
from stoker.supervisor import actions as a
from stoker.supervisor import batching
from stoker.supervisor.orphans import Orphan, Orphans
from stoker.supervisor.sequences import SPARE_LOOKS, KnownSequence, SequencePolicy
from stoker.wire.frames import JobFlag
from stoker.wire.sequence_labels import DEFAULT_HEADERS, made_name, read_label

POLICY = SequencePolicy(max_idle_s=10.0, timeout_s=0.0, max_open=8, max_waiting=2)


def said(name: str = "", *, start: bool = False, end: bool = False, more: str = "") -> bytes:
    """What a request says of its sequence."""
    lines = ["ts_other", more]
    lines += [DEFAULT_HEADERS.name, name] if name else []
    lines += [DEFAULT_HEADERS.start, "true"] if start else []
    lines += [DEFAULT_HEADERS.end, "true"] if end else []
    return "\n".join(lines).encode()


@pytest.fixture
def serve(stage):
    def serve(**spec: Any):
        spec = {"sequences": POLICY, "workers": 2, **spec}
        return stage.serve(**spec)

    return serve


@pytest.fixture
def ask(stage):
    """One request of a sequence."""

    def ask(name: str = "", *, flags: int = 0, ends_turn: bool = True, **label: Any) -> bytes:
        body = said(name, **label)
        job_id: bytes = stage.submit(body=body, flags=flags, ends_turn=ends_turn)
        return job_id

    return ask


def home_of(stage, job_id: bytes) -> int:
    """The worker that got a job."""
    (worker_id,) = (
        batch.worker_id
        for batch in stage.took(a.SendBatch)
        if job_id in [job.job_id for job in batch.jobs]
    )
    return int(worker_id)


# -- where ------------------------------------------------------------------------


def test_all_of_a_sequence_goes_to_one_worker(stage, serve, ask):
    """
    Its state is there and nowhere else.
    """
    serve()
    first = ask("x")
    home = home_of(stage, first)

    for _ in range(4):
        stage.answer(home)
        assert home_of(stage, ask("x")) == home


def test_new_sequences_go_to_the_worker_that_has_the_fewest(stage, serve, ask):
    """
    State takes memory; that should not gather in one process.
    """
    key = serve()
    for name in "abcdef":
        worker_id = home_of(stage, ask(name))
        stage.answer(worker_id)

    pool = stage.served(key).pool
    assert [pool.sequence_count(worker_id) for worker_id in stage.alive(key)] == [3, 3]


def test_a_worker_has_no_more_sequences_than_its_share(stage, serve, ask):
    """
    While another worker is being replaced, new ones wait for it.
    """
    key = serve(sequences=SequencePolicy(10.0, max_open=4))
    left, right = stage.alive(key)
    stage.exit(right)
    for name in "ab":
        stage.answer(home_of(stage, ask(name)))

    third = ask("c")
    assert [third] not in stage.sent()
    (fresh,) = set(stage.alive(key)) - {left}
    stage.load(fresh)

    assert home_of(stage, third) == fresh


# -- in which order -----------------------------------------------------------------


def test_a_batch_has_one_job_of_each_sequence(stage, serve, ask):
    """
    The second one needs what the first one leaves (8.7).
    """
    serve(workers=1, batch_size=4)

    first = [ask(name, ends_turn=False) for name in "xxyyz"]
    stage.end_turn()

    assert stage.sent() == [[first[0], first[2], first[4]]]
    stage.answer(home_of(stage, first[0]))
    assert stage.sent()[1:] == [[first[1], first[3]]]


def test_a_batch_ends_before_it_would_be_too_large_to_send(stage, serve, ask, monkeypatch):
    """
    One frame says what a batch is; the rest is the next one's.
    """
    monkeypatch.setattr(batching, "MAX_BATCH_BYTES", 250)
    serve(workers=1, batch_size=4)

    jobs = [ask(name, ends_turn=False, more="x" * 60) for name in "abcd"]
    stage.end_turn()
    stage.answer(home_of(stage, jobs[0]))

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
    stage.answer(home_of(stage, gone))

    assert stage.sent()[1:] == [[behind]]


def test_a_batch_waits_only_for_sequences_that_could_join(stage, serve, ask):
    """
    When each that lives there is in it, nothing is gained by the delay.
    """
    serve(workers=1, batch_size=4, delay_s=0.1)
    assert len(stage.sent()) == 0
    worker_id = home_of(stage, ask("x"))
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
    home = home_of(stage, first)
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


# -- how many ---------------------------------------------------------------------


def test_more_of_a_sequence_than_may_wait_is_refused(stage, serve, ask):
    """
    maxSequenceJobQueueSize (6.3), beside the one in hand.
    """
    serve()
    jobs = [ask("x") for _ in range(4)]

    assert stage.refused == {jobs[3]: "sequence_queue_full"}


def test_more_sequences_than_may_be_open_are_refused(stage, serve, ask):
    """
    maxNumSequence, but never fewer than the batches of all workers have room for (6.3).
    """
    serve(sequences=SequencePolicy(10.0, max_open=2), batch_size=2)
    jobs = [ask(name) for name in "abcde"]

    assert stage.refused == {jobs[4]: "too_many_sequences"}


def test_a_name_beyond_reason_is_refused(stage, serve, ask):
    """
    It is kept for as long as the sequence lives.
    """
    serve()

    job_id = ask("x" * 257)

    assert stage.refused == {job_id: "invalid_parameter"}


# -- ends -------------------------------------------------------------------------


def test_an_idle_sequence_is_closed_and_its_place_free(stage, serve, ask):
    """
    sequenceMaxIdleMSec, from the end of its last job.
    """
    key = serve()
    stage.answer(home_of(stage, ask("x")))

    stage.advance(9.0)
    assert len(stage.served(key).pool.sequences) == 1
    stage.advance(1.5)

    assert len(stage.served(key).pool.sequences) == 0


def test_a_sequence_at_work_is_not_idle(stage, serve, ask):
    """
    However long its job takes.
    """
    key = serve(response_timeout_s=100.0)
    ask("x")

    stage.advance(30.0)

    assert len(stage.served(key).pool.sequences) == 1


def test_a_sequence_that_is_too_old_takes_nothing_more(stage, serve, ask):
    """
    sequenceTimeoutMSec: what is in hand is answered, what waits is told.
    """
    key = serve(sequences=SequencePolicy(10.0, 20.0, 8, 2), response_timeout_s=100.0)
    in_hand, waiting = ask("x"), ask("x")

    stage.advance(20.5)
    late = ask("x")
    stage.answer(home_of(stage, in_hand))

    assert stage.refused == {waiting: "sequence_closed", late: "sequence_closed"}
    assert len(stage.served(key).pool.sequences) == 0


def test_a_client_ends_its_sequence_with_its_last_request(stage, serve, ask):
    """
    Its place is free at once, and what comes behind it is a mistake that is told.
    """
    key = serve()
    stage.answer(home_of(stage, ask("x", start=True)))
    last = ask("x", end=True)
    behind = ask("x")
    stage.answer(home_of(stage, last))

    assert stage.refused == {behind: "sequence_closed"}
    assert len(stage.served(key).pool.sequences) == 0


def test_a_client_may_start_anew_right_behind_the_end(stage, serve, ask):
    """
    The name is the same, the sequence is not.
    """
    serve(workers=1)
    home = home_of(stage, ask("x", end=True))
    again, then = ask("x", start=True), ask("x")

    stage.answer(home)
    stage.answer(home)

    assert stage.sent()[1:] == [[again], [then]]
    assert not stage.refused


def test_a_handler_ends_a_sequence(stage, serve, ask):
    """
    By its response header (8.7); the worker tells it before the answer.
    """
    key = serve()
    first, behind = ask("x"), ask("x")
    home = home_of(stage, first)

    stage.engine.worker_ended_sequences(home, ["x", "unknown"], stage.now)
    assert len(stage.served(key).pool.sequences) == 1
    stage.answer(home)

    assert stage.refused == {behind: "sequence_closed"}
    assert len(stage.served(key).pool.sequences) == 0


def test_a_worker_ends_only_what_lives_in_it(stage, serve, ask):
    """
    Handlers are not trusted with others' sequences.
    """
    key = serve()
    homes = {name: home_of(stage, ask(name)) for name in "xy"}

    stage.engine.worker_ended_sequences(homes["x"], ["y"], stage.now)
    stage.answer(homes["y"])

    assert stage.served(key).pool.sequence_count(homes["y"]) == 1


def test_without_sequences_no_worker_may_speak_of_them(stage):
    """
    It would be a bug in it, or a lie.
    """
    (worker_id,) = stage.alive(stage.serve())

    with pytest.raises(ProtocolError):
        stage.engine.worker_ended_sequences(worker_id, ["x"], stage.now)


def test_what_was_closed_begins_anew_under_its_clients_name(stage, serve, ask):
    """
    As in the peer: the name is the client's, and so is the judgement.
    """
    serve()
    stage.answer(home_of(stage, ask("x")))
    stage.advance(11.0)

    assert home_of(stage, ask("x"))
    assert not stage.refused


def test_a_name_of_ours_never_begins_anew(stage, serve, ask):
    """
    Who has it had a sequence, and means that one.
    """
    serve()
    first = ask()
    stage.answer(home_of(stage, first))
    name = made_name(first)
    assert home_of(stage, ask(name)) == home_of(stage, first)
    stage.answer(home_of(stage, first))
    stage.advance(11.0)

    late = ask(name)

    assert stage.refused == {late: "sequence_closed"}


# -- workers that die -----------------------------------------------------------------


def test_a_dead_workers_sequences_are_lost_and_said_to_be(stage, serve, ask):
    """
    The other worker would answer, without what had been said before.
    """
    key = serve()
    homes = {name: home_of(stage, ask(name)) for name in "xy"}
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
    assert home_of(stage, other) == homes["y"]
    assert stage.served(key).pool.sequences.lost_count == 1


def test_a_lost_sequence_may_be_started_anew(stage, serve, ask):
    """
    Its client knows then that nothing is left of the old one.
    """
    serve()
    home = home_of(stage, ask("x"))
    stage.answer(home)
    stage.exit(home)

    again = ask("x", start=True)
    assert home_of(stage, again) != home
    stage.answer(home_of(stage, again))

    assert home_of(stage, ask("x")) == home_of(stage, again)


def test_a_start_that_was_never_handled_starts_nothing(stage, serve, ask):
    """
    Its client left, or gave up; what comes behind it still needs what is lost.
    """
    serve(workers=1)
    home = home_of(stage, ask("x"))
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
    home = home_of(stage, ask("x"))
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
    stage.exit(home_of(stage, first))

    ask("x")

    assert stage.refused == {first: "worker_died"}


def test_what_is_in_the_hand_of_a_worker_that_must_go_may_still_be_answered(stage, serve, ask):
    """
    Then there was a state, and it is gone.
    """
    key = serve(workers=1)
    first = ask("x")
    home = home_of(stage, first)

    stage.scale(key, 1, drain_s=0.0)
    stage.engine.worker_lied(home, stage.now, "it is killed")
    stage.answer(home)
    late = ask("x")

    assert stage.refused == {late: "sequence_lost"}


# -- workers that leave -----------------------------------------------------------------


def test_scale_down_waits_for_sequences(stage, serve, ask):
    """
    A worker that leaves serves what lives in it, and takes nothing new.
    """
    key = serve()
    homes = {name: home_of(stage, ask(name)) for name in "xy"}
    for home in homes.values():
        stage.answer(home)
    leaving = homes["y"]
    assert leaving == stage.alive(key)[-1]

    stage.scale(key, 1)
    stage.answer(home_of(stage, ask("z")))
    more = ask("y")
    assert home_of(stage, more) == leaving
    assert not [x for x in stage.took(a.SendLeave) if x.worker_id == leaving]
    stage.engine.worker_ended_sequences(leaving, ["y"], stage.now)
    stage.answer(leaving)
    stage.advance(0.3)

    assert [x.worker_id for x in stage.took(a.SendLeave)] == [leaving]
    assert stage.served(key).pool.sequence_count(leaving) == 0


def test_a_version_that_falls_asleep_keeps_who_has_sequences(stage, ask):
    """
    Its worker is idle, and yet it is waited for; what is new gets another one.
    """
    key = stage.register(sequences=SequencePolicy(100.0, max_open=8), max_idle_s=5.0)
    stage.scale(key, 0, 2)
    ask("x")
    (home,) = stage.alive(key)
    stage.load(home)
    stage.answer(home)
    stage.advance(40.0)
    assert stage.served(key).pool.is_winding_down(stage.worker(home))

    known, new = ask("x"), ask("y")
    stage.advance(2.0)
    (fresh,) = set(stage.alive(key)) - {home}
    stage.load(fresh)

    assert home_of(stage, known) == home
    assert home_of(stage, new) == fresh


def test_scale_down_waits_no_longer_than_it_was_told(stage, serve, ask):
    """
    `timeout` of the call: then the sequences are lost, and said to be.
    """
    key = serve()
    homes = {name: home_of(stage, ask(name)) for name in "xy"}
    for home in homes.values():
        stage.answer(home)

    stage.scale(key, 1, drain_s=3.0)
    stage.advance(2.5)
    assert not stage.took(a.SendLeave)
    stage.advance(1.0)
    late = ask("y")

    assert [x.worker_id for x in stage.took(a.SendLeave)] == [homes["y"]]
    assert stage.refused == {late: "sequence_lost"}


def test_scaled_to_nothing_sequences_end_but_none_begin(stage, serve, ask):
    """
    The last worker has hope only for what lives in it.
    """
    key = serve(workers=1)
    home = home_of(stage, ask("x"))
    stage.answer(home)

    stage.scale(key, 0, drain_s=5.0)
    new, known = ask("y"), ask("x")

    assert stage.refused == {new: "no_worker"}
    assert home_of(stage, known) == home
    stage.advance(6.0)
    assert not stage.took(a.SendLeave)  # what it held was cut off: it was killed
    assert [x.worker_id for x in stage.took(a.Kill)] == [home]


def test_unregistering_waits_for_no_sequence(stage, serve, ask):
    """
    Nobody can ask for the model any more.
    """
    key = serve(workers=1)
    home = home_of(stage, ask("x"))
    stage.answer(home)

    stage.unregister(key)

    assert [x.worker_id for x in stage.took(a.SendLeave)] == [home]


# -- supervisors that die -----------------------------------------------------------------


@pytest.fixture
def succeed(stage):
    """Two workers of a dead supervisor, on their way back."""

    def succeed(dead: int = 0, **spec: Any):
        orphans = Orphans(
            lambda spec: spec.model,
            [("echo", Orphan(number, 9000 + number, 5000 + number)) for number in (1, 2)],
            ["echo"] * dead,
        )
        stage.engine.inherit(orphans, 2, 9002)
        key = stage.register(sequences=POLICY, **spec)
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

    assert {name: home_of(stage, job_id) for name, job_id in jobs.items()} == {"x": 1, "y": 2}
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

    assert home_of(stage, job_id) == 1


def test_where_a_worker_did_not_come_back_no_unknown_name_is_new(stage, succeed, ask):
    """
    It may be that of a sequence which died with that worker.
    """
    succeed()
    unknown, new = ask("x"), ask("y", start=True)
    came_back(stage, 1, "z")
    stage.exit(2)

    assert stage.refused == {unknown: "sequence_lost"}
    assert home_of(stage, new) == 1
    stage.answer(1)
    assert home_of(stage, ask("z")) == 1
    stage.answer(1)
    stage.advance(11.0)
    assert home_of(stage, ask("x")) == 1


def test_nor_where_one_died_with_the_supervisor(stage, succeed, ask):
    """
    Nobody is left who could say what lived in it.
    """
    succeed(dead=1)
    came_back(stage, 1, "z")
    came_back(stage, 2)

    unknown = ask("x")

    assert stage.refused == {unknown: "sequence_lost"}


# -- names --------------------------------------------------------------------------------


def test_supervisor_and_worker_make_the_same_name():
    """
    Nobody tells the other; the same request said again has the same one.
    """
    label = read_label(DEFAULT_HEADERS, b"f" * 16, ["Accept", "x"])

    assert label.is_made
    assert label.is_start
    assert label == read_label(DEFAULT_HEADERS, b"f" * 16, [])
    assert label.name is not None
    assert label.name.startswith("ts-seq-")
    assert label.name != made_name(b"g" * 16)


def test_header_names_ignore_case_but_not_underscores():
    """
    2.5: clients send them with underscores.
    """
    texts = ["TS_Request_Sequence_ID", "x", "ts-request-sequence-end", "true"]

    label = read_label(DEFAULT_HEADERS, b"f" * 16, texts)

    assert label == ("x", False, False, False)


@pytest.mark.parametrize(
    ("value", "is_end"), [("true", True), ("1", True), ("false", False), ("", False)]
)
def test_a_flag_may_be_said_not_to_hold(value, is_end):
    """
    Some clients always send all three.
    """
    texts = [DEFAULT_HEADERS.name, "x", DEFAULT_HEADERS.end, value]

    assert read_label(DEFAULT_HEADERS, b"f" * 16, texts).is_end is is_end


# -- whatever happens -----------------------------------------------------------------------


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
def test_a_sequence_is_handled_in_order_by_one_worker(make_stage, moves, batch_size, at_once):
    """
    From its first job to its end; what has no home any more is told so.
    """
    stage = make_stage()
    policy = SequencePolicy(max_idle_s=5.0, timeout_s=20.0, max_open=4, max_waiting=2)
    key = stage.serve(workers=2, batch_size=batch_size, sequences=policy, jobs_at_once=at_once)
    asked: list[tuple[bytes, str]] = []
    homes: dict[Any, int] = {}
    for move, *details in moves:
        alive = stage.alive(key)
        chosen = alive[details[0] % len(alive)] if alive and type(details[0]) is int else None
        if move == "ask":
            name, start, end = details
            asked.append((stage.submit(body=said(name, start=start, end=end)), name))
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


def test_sequences_that_have_ended_leave_nothing_behind(stage, serve, ask):
    """
    However many there were, and however long an idle one would have lived.
    """
    key = serve(workers=1, sequences=SequencePolicy(3600.0, max_open=8))
    for number in range(3 * SPARE_LOOKS):
        stage.answer(home_of_last(stage, ask(f"s{number}", end=True)))
        stage.forget()
    stage.advance(1.0)

    sequences = stage.served(key).pool.sequences
    assert len(sequences) == 0
    assert len(sequences._looks) <= SPARE_LOOKS


def home_of_last(stage, job_id: bytes) -> int:
    (batch,) = stage.took(a.SendBatch)
    assert [job.job_id for job in batch.jobs] == [job_id]
    return int(batch.worker_id)


def test_what_starts_anew_behind_an_old_sequence_is_not_old_itself(stage, serve, ask):
    """
    It has waited for longer than a sequence may live; that ends the old one alone.
    """
    serve(workers=1, sequences=SequencePolicy(10.0, 5.0, 8, 2), response_timeout_s=100.0)
    home = home_of(stage, ask("x"))
    again = ask("x", start=True)

    stage.advance(20.0)
    stage.answer(home)
    stage.answer(home)

    assert stage.sent()[1:] == [[again]]
    assert not stage.refused
