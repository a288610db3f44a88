"""For how many more workers there is memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor.memory_room import MemoryRoom, Tenant

GIB = 1 << 30
SIZES = st.integers(0, 64 * GIB)


def room_of(available_bytes):
    room = MemoryRoom()
    room.available_bytes = available_bytes
    return room


def test_nothing_is_refused_before_anybody_looked():
    who = Tenant(GIB)

    assert MemoryRoom().workers(7, who, [who]) == 7


def test_what_must_stay_free_stays_free():
    who = Tenant(GIB, reserved_bytes=GIB)

    assert room_of(3 * GIB).workers(5, who, [who]) == 2


def test_workers_on_their_way_have_their_memory_already():
    """
    They hold nothing yet, so the host says that it is free; two versions that
    believe it would both take it.
    """
    starting, who = Tenant(2 * GIB, starting=1), Tenant(GIB)

    assert room_of(3 * GIB).workers(5, who, [starting, who]) == 1


def test_of_an_unknown_version_one_is_started_and_looked_at():
    """
    The second could be the one that does not fit.
    """
    assert room_of(8 * GIB).workers(5, Tenant(0), []) == 1
    assert room_of(8 * GIB).workers(5, Tenant(0, starting=1), []) == 0


@given(SIZES, SIZES, SIZES, st.integers(0, 9), st.integers(1, 9))
def test_what_is_granted_fits(available, worker, reserved, starting, asked):
    who = Tenant(worker, starting, reserved)

    granted = room_of(available).workers(asked, who, [who])

    assert 0 <= granted <= asked
    if granted and worker:
        assert worker * (granted + starting) + reserved <= available
