"""Workers that are to leave, and the sequences that live in them."""

from __future__ import annotations

from stoker.supervisor import actions as a
from stoker.supervisor.sequences import SequencePolicy


def test_scale_down_waits_for_sequences(stage, serve, ask):
    """
    A worker that leaves serves what lives in it, and takes nothing new.
    """
    key = serve()
    homes = {name: stage.home_of(ask(name)) for name in "xy"}
    for home in homes.values():
        stage.answer(home)
    leaving = homes["y"]
    assert leaving == stage.alive(key)[-1]

    stage.scale(key, 1)
    stage.answer(stage.home_of(ask("z")))
    more = ask("y")
    assert stage.home_of(more) == leaving
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

    assert stage.home_of(known) == home
    assert stage.home_of(new) == fresh


def test_scale_down_waits_no_longer_than_it_was_told(stage, serve, ask):
    """
    `timeout` of the call: then the sequences are lost, and said to be.
    """
    key = serve()
    homes = {name: stage.home_of(ask(name)) for name in "xy"}
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
    home = stage.home_of(ask("x"))
    stage.answer(home)

    stage.scale(key, 0, drain_s=5.0)
    new, known = ask("y"), ask("x")

    assert stage.refused == {new: "no_worker"}
    assert stage.home_of(known) == home
    stage.advance(6.0)
    assert not stage.took(a.SendLeave)  # what it held was cut off: it was killed
    assert [x.worker_id for x in stage.took(a.Kill)] == [home]


def test_unregistering_waits_for_no_sequence(stage, serve, ask):
    """
    Nobody can ask for the model any more.
    """
    key = serve(workers=1)
    home = stage.home_of(ask("x"))
    stage.answer(home)

    stage.unregister(key)

    assert [x.worker_id for x in stage.took(a.SendLeave)] == [home]
