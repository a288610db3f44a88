"""One job's life, cell by cell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor.jobs import JOB_MOVES, ImpossibleMove, Job, JobEvent, JobState
from stoker.wire.frames import JobFlag

ENDS = {JobState.COMPLETED, JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED}

#: Written out a second time on purpose: the table is the promise.
EXPECTED = {
    (JobState.QUEUED, JobEvent.SEND): JobState.SENT,
    (JobState.QUEUED, JobEvent.FAIL): JobState.FAILED,
    (JobState.QUEUED, JobEvent.EXPIRE): JobState.EXPIRED,
    (JobState.QUEUED, JobEvent.CANCEL): JobState.CANCELLED,
    (JobState.SENT, JobEvent.GIVE_BACK): JobState.QUEUED,
    (JobState.SENT, JobEvent.COMPLETE): JobState.COMPLETED,
    (JobState.SENT, JobEvent.FAIL): JobState.FAILED,
    (JobState.SENT, JobEvent.EXPIRE): JobState.EXPIRED,
    (JobState.SENT, JobEvent.CANCEL): JobState.CANCELLED,
}


def new_job() -> Job:
    return Job(b"frontend" + bytes(8), b"payload", 1.0, 0.0, 1)


@pytest.mark.parametrize("event", JobEvent)
@pytest.mark.parametrize("state", JobState)
def test_every_cell_of_the_table_is_as_drawn(state, event):
    """
    A pair that is missing is a bug in us and must never pass silently.
    """
    job = new_job()
    job.state = state

    if (state, event) in EXPECTED:
        job.move(event)
        assert job.state is EXPECTED[state, event]
    else:
        with pytest.raises(ImpossibleMove, match=f"a {state.value} job cannot {event.value}"):
            job.move(event)
        assert job.state is state


def test_every_state_has_its_row():
    assert set(JOB_MOVES) == set(JobState)


@pytest.mark.parametrize("state", JobState)
def test_only_the_four_ends_have_no_way_out(state):
    job = new_job()
    job.state = state

    assert job.has_ended == (state in ENDS)


@given(st.lists(st.sampled_from(list(JobEvent)), max_size=30))
def test_a_job_ends_at_most_once_whatever_is_tried(events):
    """
    After an end every further move is refused.
    """
    job = new_job()
    ends = 0
    for event in events:
        had_ended = job.has_ended
        try:
            job.move(event)
        except ImpossibleMove:
            continue
        assert not had_ended
        ends += job.has_ended

    assert ends == job.has_ended


def test_the_frontend_is_the_first_half_of_the_id():
    assert new_job().frontend_id == b"frontend"


def test_only_a_describe_job_travels_alone():
    assert not new_job().is_loner
    assert Job(bytes(16), b"", 1.0, 0.0, 1, JobFlag.ALONE).is_loner
    assert not Job(bytes(16), b"", 1.0, 0.0, 1, 2).is_loner, "flags we do not know mean nothing"
