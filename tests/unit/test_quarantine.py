"""A worker's death costs its clients nothing when it can be helped, and a killer is kept out."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.supervisor import actions as a
from stoker.supervisor.quarantine import MAX_CONVICTIONS, Loss, Quarantine, Verdict, judge
from stoker.wire.frames import Group, Reply


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("attempts", [1, 2, 3])
@pytest.mark.parametrize("was_alone", [False, True])
@pytest.mark.parametrize("has_sent_pieces", [False, True])
def test_what_is_tried_again_and_what_is_convicted(
    make_job, loss: Loss, attempts: int, was_alone: bool, has_sent_pieces: bool
) -> None:
    """
    Half a stream cannot be taken back, and what hangs alone hangs again; a
    death that somebody from outside brought about proves nothing.
    """
    job = make_job()
    job.attempts = job.deaths = attempts

    verdict = judge(job, loss, 3, was_alone=was_alone, has_sent_pieces=has_sent_pieces)

    if loss is Loss.RETIRED or has_sent_pieces:
        assert verdict is Verdict.FAILED
    elif attempts < 3 and not (loss is Loss.SILENT and was_alone):
        assert verdict is Verdict.AGAIN
    elif was_alone and attempts > 1 and loss is not Loss.SHOT:
        assert verdict is Verdict.CONVICTED
    else:
        assert verdict is Verdict.FAILED


def test_a_job_whose_worker_died_is_answered_by_the_next_one(stage) -> None:
    """
    kill -9 of the only worker: its client waits a moment and notices nothing
    else, but that its answer is told to be the second attempt's.
    """
    key = stage.serve(max_attempts=2)
    job_id = stage.submit()

    stage.exit(stage.alive(key)[0], "SIGKILL")
    (successor,) = stage.alive(key)
    stage.load(successor)

    assert stage.took(a.Retry) == [(job_id, 1)]
    assert stage.sent(successor) == [[job_id]]
    assert stage.answer(successor) == [job_id]
    assert stage.refused == {}


def test_jobs_tried_again_keep_their_time_order(stage) -> None:
    """
    Two workers die, the younger batch first; what they held stands before what came later.
    """
    key = stage.serve(workers=2, max_attempts=2, batch_size=2)
    early, late = ([stage.submit(ends_turn=False) for _ in range(2)] for _ in range(2))
    early, late = list(early), list(late)
    stage.end_turn()
    younger = next(x for x in stage.alive(key) if stage.sent(x) == [late])
    (elder,) = [x for x in stage.alive(key) if x != younger]
    for worker_id in (younger, elder):
        stage.exit(worker_id, "SIGSEGV")
    newest = stage.submit()
    queue = [job.job_id for job in stage.served(key).pool.queue]

    assert queue == [*early, *late, newest]


def settle(stage, key, killers, deaths=None) -> int:
    """Play workers that die of `killers` until nothing moves; returns how many died."""
    died = 0
    for _ in range(200):
        alive = stage.alive(key)
        busy = [x for x in alive if stage.worker(x).in_hand]
        loading = [x for x in alive if stage.worker(x).loaded_at is None]
        if loading:
            stage.load(loading[0])
        elif not busy:
            if len(alive) == len(stage.served(key).crew.slots):
                return died
            stage.advance(1.0)
        elif killers & {job.job_id for job in stage.worker(busy[0]).in_hand[0].jobs}:
            died += 1
            stage.exit(busy[0], "SIGSEGV")
        else:
            stage.answer(busy[0])
    raise AssertionError("no end of it")


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("place", range(8))
def test_of_a_batch_that_died_together_the_killer_dies_alone(stage, workers, place) -> None:
    """
    Batch of 8 with one killer: 7 answers, 1 typed error, 2 deaths, wherever it stands.
    """
    key = stage.serve(workers=workers, max_attempts=2, batch_size=8)
    job_ids = [stage.submit(ends_turn=False) for _ in range(8)]
    stage.end_turn()

    deaths = settle(stage, key, {job_ids[place]})

    assert stage.refused == {job_ids[place]: "worker_died"}
    error = stage.refusal(job_ids[place])
    assert error.details["attempts"] == 2
    assert error.details["exit"] == "SIGSEGV"
    assert stage.engine.job_count == 0
    assert deaths == 2


def test_two_killers_of_one_batch_are_both_found(stage) -> None:
    """
    Each costs a death of its own and the first one is shared.
    """
    key = stage.serve(max_attempts=2, batch_size=8)
    job_ids = [stage.submit(ends_turn=False) for _ in range(8)]
    stage.end_turn()
    killers = {job_ids[0], job_ids[6]}

    deaths = settle(stage, key, killers)

    assert stage.refused == dict.fromkeys(killers, "worker_died")
    assert deaths == 3


@given(data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whoever_kills_among_whomever_the_rest_are_answered(make_stage, data) -> None:
    """
    Any batch sizes, workers, attempts and killers: innocents get answers, and
    nobody costs more deaths than the attempts it is given.
    """
    stage = make_stage()
    size, workers = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 3))
    attempts = data.draw(st.integers(2, 3))
    key = stage.serve(workers=workers, max_attempts=attempts, batch_size=size, max_retry_s=1e6)
    count = data.draw(st.integers(1, 24))
    job_ids = [stage.submit(ends_turn=False, deadline_s=1e6) for _ in range(count)]
    killers = set(data.draw(st.lists(st.sampled_from(job_ids), max_size=3)))
    stage.end_turn()

    deaths = settle(stage, key, killers)

    assert stage.refused == dict.fromkeys(killers, "worker_died")
    assert {stage.refusal(job_id).details["attempts"] for job_id in killers} <= {attempts}
    assert deaths <= attempts * len(killers)
    assert stage.engine.job_count == 0
    assert stage.served(key).pool.recovery.suspects == 0


def test_of_a_batch_that_hangs_together_only_the_one_that_hangs_is_told(stage) -> None:
    """
    The rest are answered, each alone; the killer has one more response_timeout.
    """
    key = stage.serve(max_attempts=2, batch_size=3, response_timeout_s=2.0)
    job_ids = [stage.submit(ends_turn=False) for _ in range(3)]
    stage.end_turn()

    for _ in range(100):
        (worker_id,) = stage.alive(key) or (None,)
        if worker_id is None or stage.signals(worker_id):
            if worker_id is not None:
                stage.exit(worker_id, "SIGABRT")
            stage.advance(1.0)
        elif stage.worker(worker_id).loaded_at is None:
            stage.load(worker_id)
        elif not stage.worker(worker_id).in_hand:
            break
        elif job_ids[1] in [job.job_id for job in stage.worker(worker_id).in_hand[0].jobs]:
            stage.advance(1.0)
        else:
            stage.answer(worker_id)

    assert stage.refused == {job_ids[1]: "worker_died"}
    assert stage.refusal(job_ids[1]).details["reason"] == "timeout"


def test_while_there_are_suspects_nothing_is_sent_ahead(stage) -> None:
    """
    With one batch in hand at a time, the next death names its cause.
    """
    key = stage.serve(max_attempts=3)
    for _ in range(3):
        stage.submit()
    stage.exit(stage.alive(key)[0], "SIGSEGV")
    (successor,) = stage.alive(key)

    stage.load(successor)

    assert len(stage.sent(successor)) == 1
    stage.answer(successor)
    assert len(stage.sent(successor)) == 2


def test_a_stream_that_has_begun_is_not_begun_again(stage) -> None:
    """
    The client has the first pieces; a second beginning would be a lie.
    """
    key = stage.serve(max_attempts=2)
    job_id = stage.submit()
    (worker_id,) = stage.alive(key)
    (batch,) = [x for x in stage.took(a.SendBatch) if x.worker_id == worker_id]
    stage.reply(worker_id, Reply(batch.batch_id, False, [], [Group(job_id[:8], b"piece")]))

    stage.exit(worker_id, "SIGKILL")

    assert stage.refused == {job_id: "worker_died"}


def test_a_silent_workers_job_is_not_tried_again(stage) -> None:
    """
    Its client has waited for one response_timeout already.
    """
    key = stage.serve(max_attempts=5, response_timeout_s=2.0)
    job_id = stage.submit()
    (worker_id,) = stage.alive(key)
    stage.advance(2.5)

    stage.exit(worker_id, "SIGABRT")

    assert stage.refused == {job_id: "worker_died"}


# -- kept out -------------------------------------------------------------------------


def kill_with(stage, key, body=b"poison", **more):
    """One request that kills whoever works on it, until its client is told."""
    job_id = stage.submit(body=body, **more)
    settle(stage, key, {job_id})
    return job_id


def test_the_same_poison_again_is_refused_without_another_death(stage) -> None:
    """
    Whoever sends it, and whatever else differs; other requests of its size are let in.
    """
    key = stage.serve(max_attempts=2)
    first = kill_with(stage, key)
    spawned = len(stage.took(a.Spawn))

    second = stage.submit(body=b"poison", frontend=b"frontwo.")
    other = stage.submit(body=b"nosiop")

    assert stage.refused == {first: "worker_died", second: "quarantined"}
    assert stage.refusal(second).details["deaths"] == 2
    assert stage.sent()[-1] == [other]
    assert len(stage.took(a.Spawn)) == spawned
    (note,) = stage.notes("request kills workers")
    assert note["attempts"] == 2
    assert note["content"] == b"poison".hex()


def test_the_same_poison_in_the_queue_does_not_reach_a_worker(stage) -> None:
    """
    Clients that repeat a request when it takes long must not cost two deaths each.
    """
    key = stage.serve(max_attempts=2)
    first, repeated = stage.submit(body=b"poison"), stage.submit(body=b"poison")
    innocent = stage.submit()

    deaths = settle(stage, key, {first, repeated})

    assert stage.refused == {first: "worker_died", repeated: "quarantined"}
    assert deaths == 2
    assert [innocent] in stage.sent()


def test_the_same_poison_in_another_hand_is_not_tried_again(stage) -> None:
    """
    Its worker dies of it too; that is enough to know.
    """
    key = stage.serve(workers=2, max_attempts=2)
    first, second = stage.submit(body=b"poison"), stage.submit(body=b"poison")
    (elsewhere,) = [x for x in stage.alive(key) if stage.sent(x) == [[second]]]
    for _ in range(2):
        (worker_id,) = [x for x in stage.alive(key) if x != elsewhere]
        if stage.worker(worker_id).loaded_at is None:
            stage.load(worker_id)
        stage.exit(worker_id, "SIGSEGV")
    assert stage.refused == {first: "worker_died"}

    stage.exit(elsewhere, "SIGSEGV")

    assert stage.refused == {first: "worker_died", second: "quarantined"}


def test_a_poison_may_come_again_after_a_while(stage) -> None:
    """
    Somebody may have mended what it stumbled over.
    """
    key = stage.serve(max_attempts=2, quarantine_s=60.0)
    kill_with(stage, key)

    stage.advance(59.0)
    refused = stage.submit(body=b"poison")
    stage.advance(1.5)
    let_in = stage.submit(body=b"poison")

    assert stage.refused[refused] == "quarantined"
    assert stage.sent()[-1] == [let_in]
    assert [note["refused"] for note in stage.notes("request may come again")] == [1]


def test_an_operator_who_scales_gives_everything_another_chance(stage) -> None:
    key = stage.serve(max_attempts=2)
    kill_with(stage, key)

    stage.scale(key, 1)
    let_in = stage.submit(body=b"poison")

    assert stage.sent()[-1] == [let_in]


def test_a_death_from_outside_convicts_nobody(stage) -> None:
    """
    An operator's kill -9, twice at the same request, says nothing about the request.
    """
    key = stage.serve(max_attempts=2)
    first = stage.submit(body=b"unlucky")
    for _ in range(2):
        stage.exit(stage.alive(key)[0], "SIGKILL", is_oom=True, is_shot=True)
        stage.advance(2.0)
        stage.load(stage.alive(key)[0])

    second = stage.submit(body=b"unlucky")

    assert stage.refused == {first: "worker_out_of_memory"}
    assert stage.sent()[-1] == [second]


def test_one_death_convicts_nobody(stage) -> None:
    """
    A handler that may not see a request twice has no second death to tell by.
    """
    key = stage.serve(max_attempts=1)
    first = kill_with(stage, key)

    second = stage.submit(body=b"poison")

    assert stage.refused == {first: "worker_died"}
    assert stage.sent()[-1] == [second]


def test_a_handler_that_stopped_when_told_has_killed_nobody(stage) -> None:
    """
    Its batch took too long once, which is no death; one more is not proof enough.
    """
    key = stage.serve(max_attempts=2, batch_size=2, response_timeout_s=1.0)
    job_id, _ = stage.submit(body=b"slow", ends_turn=False), stage.submit()
    (worker_id,) = stage.alive(key)
    stage.advance(1.5)
    stage.answer(worker_id)
    assert stage.sent(worker_id)[-1] == [job_id]

    stage.exit(worker_id, "SIGSEGV")

    assert stage.refused == {job_id: "worker_died"}
    assert stage.refusal(job_id).details["attempts"] == 2
    assert stage.notes("request kills workers") == []


def test_quarantine_can_be_turned_off(stage) -> None:
    key = stage.serve(max_attempts=2, quarantine_s=0.0)
    kill_with(stage, key)

    again = stage.submit(body=b"poison")

    assert stage.sent()[-1] == [again]


def test_a_request_that_cannot_be_read_is_not_remembered(stage) -> None:
    """
    Its body was in memory that its client's end has freed.
    """
    key = stage.serve(max_attempts=2)
    first = kill_with(stage, key, body=b"unreadable")

    again = stage.submit(body=b"unreadable")

    assert stage.refused == {first: "worker_died"}
    assert stage.sent()[-1] == [again]
    assert [note["content"] for note in stage.notes("request kills workers")] == [None]


def test_quarantine_is_bounded(stage, make_job, contents) -> None:
    """
    The oldest is forgotten first.
    """
    quarantine = Quarantine(300.0, contents)
    for number in range(MAX_CONVICTIONS + 1):
        job = make_job()
        job.payload = b"poison %d" % number
        quarantine.convict(job, "SIGSEGV", 0.0)

    assert len(quarantine.convictions) == MAX_CONVICTIONS
    assert quarantine.find(b"", b"poison 0", 1.0) is None
    assert quarantine.find(b"", b"poison 1", 1.0) is not None


def test_an_explained_death_does_not_keep_the_innocent_waiting(stage) -> None:
    """
    The worker was well, and so will be the next: it comes at once, back-off or not.
    """
    key = stage.serve(max_attempts=2)
    killer, innocent = stage.submit(), stage.submit()
    stage.exit(stage.alive(key)[0], "SIGSEGV")
    stage.load(stage.alive(key)[0])

    stage.exit(stage.alive(key)[0], "SIGSEGV")

    (worker_id,) = stage.alive(key)
    stage.load(worker_id)
    assert stage.refused == {killer: "worker_died"}
    assert stage.sent(worker_id) == [[innocent]]
