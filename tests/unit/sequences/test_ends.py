"""How a sequence ends: idle, too old, by its client or by its handler."""

from __future__ import annotations

import pytest

from stoker.errors import ProtocolError
from stoker.supervisor.sequences import SPARE_LOOKS, SequencePolicy
from stoker.wire.sequence_labels import made_name


def test_an_idle_sequence_is_closed_and_its_place_free(stage, serve, ask):
    """
    sequenceMaxIdleMSec, from the end of its last job.
    """
    key = serve()
    stage.answer(stage.home_of(ask("x")))

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
    stage.answer(stage.home_of(in_hand))

    assert stage.refused == {waiting: "sequence_closed", late: "sequence_closed"}
    assert len(stage.served(key).pool.sequences) == 0


def test_a_start_within_an_open_sequence_makes_it_no_younger(stage, serve, ask):
    """
    Nothing starts: what is open goes on, as the peer has it.
    """
    key = serve(sequences=SequencePolicy(10.0, 20.0, 8, 2), response_timeout_s=100.0)
    stage.answer(stage.home_of(ask("x", start=True)))

    for _ in range(2):
        stage.advance(9.0)
        stage.answer(stage.home_of(ask("x", start=True)))
    stage.advance(2.5)

    assert len(stage.served(key).pool.sequences) == 0


def test_a_client_ends_its_sequence_with_its_last_request(stage, serve, ask):
    """
    Its place is free at once, and what comes behind it is a mistake that is told.
    """
    key = serve()
    stage.answer(stage.home_of(ask("x", start=True)))
    last = ask("x", end=True)
    behind = ask("x")
    stage.answer(stage.home_of(last))

    assert stage.refused == {behind: "sequence_closed"}
    assert len(stage.served(key).pool.sequences) == 0


def test_a_client_may_start_anew_right_behind_the_end(stage, serve, ask):
    """
    The name is the same, the sequence is not.
    """
    serve(workers=1)
    home = stage.home_of(ask("x", end=True))
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
    home = stage.home_of(first)

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
    homes = {name: stage.home_of(ask(name)) for name in "xy"}

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
    stage.answer(stage.home_of(ask("x")))
    stage.advance(11.0)

    assert stage.home_of(ask("x"))
    assert not stage.refused


def test_a_name_of_ours_never_begins_anew(stage, serve, ask):
    """
    Who has it had a sequence, and means that one.
    """
    serve()
    first = ask()
    stage.answer(stage.home_of(first))
    name = made_name(first)
    assert stage.home_of(ask(name)) == stage.home_of(first)
    stage.answer(stage.home_of(first))
    stage.advance(11.0)

    late = ask(name)

    assert stage.refused == {late: "sequence_closed"}


def test_sequences_that_have_ended_leave_nothing_behind(stage, serve, ask):
    """
    However many there were, and however long an idle one would have lived.
    """
    key = serve(workers=1, sequences=SequencePolicy(3600.0, max_open=8))
    for number in range(3 * SPARE_LOOKS):
        stage.answer(stage.home_of(ask(f"s{number}", end=True)))
        stage.forget()
    stage.advance(1.0)

    sequences = stage.served(key).pool.sequences
    assert len(sequences) == 0
    assert len(sequences._looks) <= SPARE_LOOKS


def test_what_starts_anew_behind_an_old_sequence_is_not_old_itself(stage, serve, ask):
    """
    It has waited for longer than a sequence may live; that ends the old one alone.
    """
    serve(workers=1, sequences=SequencePolicy(10.0, 5.0, 8, 2), response_timeout_s=100.0)
    home = stage.home_of(ask("x"))
    again = ask("x", start=True)

    stage.advance(20.0)
    stage.answer(home)
    stage.answer(home)

    assert stage.sent()[1:] == [[again]]
    assert not stage.refused
