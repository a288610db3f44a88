"""Where a sequence lives, and how many there may be."""

from __future__ import annotations

from stoker.supervisor.sequences import SequencePolicy


def test_all_of_a_sequence_goes_to_one_worker(stage, serve, ask):
    """
    Its state is there and nowhere else.
    """
    serve()
    first = ask("x")
    home = stage.home_of(first)

    for _ in range(4):
        stage.answer(home)
        assert stage.home_of(ask("x")) == home


def test_new_sequences_go_to_the_worker_that_has_the_fewest(stage, serve, ask):
    """
    State takes memory; that should not gather in one process.
    """
    key = serve()
    for name in "abcdef":
        worker_id = stage.home_of(ask(name))
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
        stage.answer(stage.home_of(ask(name)))

    third = ask("c")
    assert [third] not in stage.sent()
    (fresh,) = set(stage.alive(key)) - {left}
    stage.load(fresh)

    assert stage.home_of(third) == fresh


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
