"""What a successor knows of jobs that its predecessor was given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor import inheritance
from stoker.supervisor.inheritance import REMEMBER_S, Inheritance
from stoker.supervisor.jobs import SENT_AGAIN
from stoker.wire.frames import FRONTEND_ID_BYTES, JOB_ID_BYTES, Group, Reply, SubmittedJob


def job_id(number: int, frontend: int = 1) -> bytes:
    head = frontend.to_bytes(FRONTEND_ID_BYTES, "big")
    return head + number.to_bytes(JOB_ID_BYTES - FRONTEND_ID_BYTES, "big")


def job(number: int, frontend: int = 1, *, again: bool = False) -> SubmittedJob:
    flags = int(SENT_AGAIN) if again else 0
    return SubmittedJob(job_id(number, frontend), "m", None, 1e9, flags, b"payload")


def reply(*numbers: int, has_answer: bool = True) -> Reply:
    groups = [Group(bytes(FRONTEND_ID_BYTES), b"frame")] if has_answer else []
    return Reply(1, True, [job_id(number) for number in numbers], groups)


def fates(heir: Inheritance, number: int) -> tuple[bool, bool, bool]:
    return (
        heir.is_answered(job_id(number)),
        heir.is_torn(job_id(number)),
        heir.is_fresh(job_id(number)),
    )


def test_a_job_is_answered_torn_fresh_or_unknown():
    """
    Dropped, ended with an error, begun at once, or begun when no worker can have had it.
    """
    heir = Inheritance()

    heir.take([reply(1), reply(2, has_answer=False)], 0.0)
    heir.overhear([job(3), job(4, again=True)], 0.0)

    assert fates(heir, 1) == (True, False, False)
    assert fates(heir, 2) == (False, True, False)
    assert fates(heir, 3) == (False, False, True)
    assert fates(heir, 4) == fates(heir, 5) == (False, False, False)


def test_what_is_known_is_forgotten_when_nobody_can_ask_any_more():
    """
    And not before: a frontend may be that late.
    """
    heir = Inheritance()
    heir.take([reply(1)], 0.0)
    heir.overhear([job(3)], 1.0)

    heir.sweep(REMEMBER_S)
    before = fates(heir, 1), fates(heir, 3)
    heir.sweep(1.0 + REMEMBER_S)

    assert before == ((True, False, False), (False, False, True))
    assert fates(heir, 1) == fates(heir, 3) == (False, False, False)


def test_there_is_room_for_so_many_and_no_more(monkeypatch):
    """
    A frontend that lies costs a bounded number of entries.
    """
    monkeypatch.setattr(inheritance, "MAX_PARKED", 3)
    monkeypatch.setattr(inheritance, "MAX_FRESH", 3)
    heir = Inheritance()

    parked = [heir.park(job(number)) for number in range(5)]
    for number in range(10):
        heir.overhear([job(number)], 0.0)

    assert parked == [True, True, True, False, False]
    assert len(heir.parked) == 3
    assert sum(heir.is_fresh(job_id(number)) for number in range(10)) == 3


def test_a_frontend_takes_its_own_jobs_with_it_and_no_others():
    """
    Its clients are gone; those of its sister wait.
    """
    heir = Inheritance()
    for frontend in (1, 2):
        for number in (1, 2):
            heir.park(job(number, frontend))

    heir.forget_frontend(job_id(0, 1)[:FRONTEND_ID_BYTES])

    assert set(heir.parked) == {job_id(1, 2), job_id(2, 2)}


numbers = st.integers(0, 9)
steps = st.one_of(
    st.tuples(st.just("answered"), numbers),
    st.tuples(st.just("torn"), numbers),
    st.tuples(st.just("fresh"), numbers),
    st.tuples(st.just("again"), numbers),
    st.tuples(st.just("park"), numbers),
    st.tuples(st.just("lose"), st.integers(1, 2)),
    st.tuples(st.just("sweep"), st.floats(0, REMEMBER_S / 2)),
)


@given(st.lists(steps, max_size=40))
def test_it_says_what_it_was_told_and_nothing_else(history):
    """
    Against the plainest model there is: four sets, and the time of the last news.
    """
    heir = Inheritance()
    now, news_at = 0.0, None
    told: dict[str, set[int]] = {"answered": set(), "torn": set(), "fresh": set()}
    parked: set[int] = set()
    for what, value in history:
        if what == "answered" or what == "torn":
            heir.take([reply(value, has_answer=what == "answered")], now)
            told[what].add(value)
            news_at = now
        elif what == "fresh" or what == "again":
            heir.overhear([job(value, again=what == "again")], now)
            news_at = now
            if what == "fresh":
                told["fresh"].add(value)
        elif what == "park":
            assert heir.park(job(value))
            parked.add(value)
        elif what == "lose":
            heir.forget_frontend(job_id(0, value)[:FRONTEND_ID_BYTES])
            if value == 1:
                parked.clear()
        else:
            now += value
            heir.sweep(now)
            if news_at is not None and now >= news_at + REMEMBER_S:
                news_at = None
                for known in told.values():
                    known.clear()

    for number in range(10):
        assert fates(heir, number) == tuple(
            number in told[kind] for kind in ("answered", "torn", "fresh")
        )
    assert set(heir.parked) == {job_id(number) for number in parked}


@pytest.mark.parametrize("again", [False, True])
def test_only_what_was_said_for_the_first_time_is_fresh(again):
    """
    What is sent again may be in the hands of a worker that has not come back yet.
    """
    heir = Inheritance()

    heir.overhear([job(1, again=again)], 0.0)

    assert heir.is_fresh(job_id(1)) is not again
