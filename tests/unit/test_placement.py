"""Who gets which device: examples that read like the contract, and properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor.placement import (
    PlacementState,
    Request,
    empty,
    groups,
    place,
    release,
    retire_order,
    usable_device_ids,
)

ECHO = ("echo", "1.0")
BERT = ("bert", "2.0")


def place_all(
    state: PlacementState, requests: list[Request]
) -> tuple[list[int | None], PlacementState]:
    devices = []
    for request in requests:
        placement, state = place(state, request)
        devices.append(placement.device)
    return devices, state


def test_the_whole_server_goes_round_from_device_0() -> None:
    """
    One counter for all models, as the peer has it (but starting at 0).
    """
    requests = [Request(n, ECHO if n % 2 else BERT) for n in range(5)]

    devices, _ = place_all(empty(3), requests)

    assert devices == [0, 1, 2, 0, 1]


def test_device_ids_have_a_counter_of_their_own() -> None:
    """
    A version starts at the first of its ids, wherever the server stands.
    """
    _, state = place_all(empty(4), [Request(0, ECHO)])

    pinned, state = place_all(state, [Request(n, BERT, device_ids=(3, 1)) for n in (1, 2, 3)])

    assert pinned == [3, 1, 3]


def test_others_avoid_devices_that_are_taken_by_device_ids() -> None:
    """
    Balance counts every worker, however it came there.
    """
    _, state = place_all(empty(2), [Request(n, BERT, device_ids=(0,)) for n in range(2)])

    devices, _ = place_all(state, [Request(n, ECHO) for n in (2, 3, 4)])

    assert devices == [1, 1, 0]


def test_a_repeated_device_id_gets_its_share() -> None:
    """
    `deviceIds: [0, 0, 1]` says that device 0 takes twice as many.
    """
    devices, _ = place_all(empty(2), [Request(n, BERT, device_ids=(0, 0, 1)) for n in range(6)])

    assert devices == [0, 0, 1, 0, 0, 1]


def test_a_worker_of_several_devices_gets_neighbours() -> None:
    """
    `parallelLevel: 2` on five devices: two workers, [0, 1] and [2, 3] (8.9).
    """
    state = empty(5)

    first, state = place(state, Request(0, BERT, span=2))
    second, state = place(state, Request(1, BERT, span=2))
    third, state = place(state, Request(2, BERT, span=2))
    ordinary, state = place(state, Request(3, ECHO))

    assert [first.devices, second.devices, third.devices] == [(0, 1), (2, 3), (0, 1)]
    assert ordinary.devices == (4,)
    assert groups((), 5, 2) == ((0, 1), (2, 3))


def test_groups_follow_the_versions_own_ids() -> None:
    """
    deviceIds say which devices; parallelLevel how many of them make a worker.
    """
    assert groups((3, 1, 2, 0), 4, 2) == ((3, 1), (2, 0))
    assert groups((3, 1), 4, 3) == ()
    with pytest.raises(ValueError, match="no 3 devices"):
        place(empty(4), Request(0, BERT, device_ids=(3, 1), span=3))


def test_a_bad_device_id_drops_the_whole_list() -> None:
    """
    Contract 6.3.
    """
    assert usable_device_ids([0, 2], 2) == ()
    assert usable_device_ids([0, -1], 2) == ()
    assert usable_device_ids([1, 0], 2) == (1, 0)

    devices, _ = place_all(empty(2), [Request(n, BERT, device_ids=(0, 2)) for n in range(2)])

    assert devices == [0, 1]


def test_cpu_workers_take_no_turn() -> None:
    """
    `deviceType: cpu` next to GPU models must not unbalance those.
    """
    requests = [Request(0, ECHO), Request(1, BERT, is_gpu=False), Request(2, ECHO)]

    devices, _ = place_all(empty(2), requests)

    assert devices == [0, None, 1]


def test_a_replacement_goes_where_the_gap_is() -> None:
    """
    Scale-down and up again, or a crash, must not pile workers on one device.
    """
    _, state = place_all(empty(3), [Request(n, ECHO) for n in range(6)])
    state = release(release(state, 1), 4)

    devices, _ = place_all(state, [Request(6, ECHO), Request(7, ECHO)])

    assert devices == [1, 1]


def test_a_version_that_returns_with_other_ids_is_not_confused() -> None:
    """
    Old workers may still drain while the version is registered anew.
    """
    _, state = place_all(empty(3), [Request(n, BERT, device_ids=(0, 1, 2)) for n in range(3)])
    devices, state = place_all(state, [Request(5, BERT, device_ids=(2,))])
    assert devices == [2]

    for worker_id in (0, 1, 2, 5):
        state = release(state, worker_id)

    assert state.placed == {}
    assert state.versions == {}
    assert state.everybody.counts == (0, 0, 0)


def test_releasing_a_stranger_changes_nothing() -> None:
    """
    Exits are reported for workers that never got a place, too.
    """
    state = empty(2)

    assert release(state, 7) is state


def test_a_worker_has_one_place() -> None:
    """
    Two would leak one.
    """
    _, state = place_all(empty(2), [Request(1, ECHO)])

    with pytest.raises(ValueError, match="has a place"):
        place(state, Request(1, ECHO))


def test_scale_down_takes_from_the_fullest_device_the_youngest_first() -> None:
    """
    What is left should be spread as evenly as what was there.
    """
    _, state = place_all(empty(2), [Request(n, ECHO) for n in range(4)])
    state = release(state, 1)

    assert retire_order(state, [0, 2, 3]) == [2, 3, 0]


requests = st.builds(
    Request,
    worker_id=st.integers(0, 12),
    version=st.sampled_from([ECHO, BERT]),
    is_gpu=st.booleans(),
    device_ids=st.lists(st.integers(-1, 5), max_size=4).map(tuple),
    span=st.integers(1, 3),
    device=st.none(),
)
#: A request to place, or a worker id to release.
events = st.lists(st.one_of(requests, st.integers(0, 12)), max_size=60)


@given(devices=st.integers(1, 8), workers=st.integers(0, 50))
def test_without_device_ids_devices_differ_by_one_at_most(devices: int, workers: int) -> None:
    """
    The promise of round robin.
    """
    _, state = place_all(empty(devices), [Request(n, ECHO) for n in range(workers)])

    assert max(state.everybody.counts) - min(state.everybody.counts) <= 1


@given(devices=st.integers(0, 4), events=events)
def test_any_history_keeps_the_books(devices: int, events: list[Request | int]) -> None:
    """
    Counts are what is placed; lists are obeyed; a new worker never makes imbalance worse.
    """
    state = empty(devices)

    for event in events:
        if isinstance(event, int):
            state = release(state, event)
        elif event.worker_id not in state.placed:
            before = state.everybody.counts
            ids = usable_device_ids(event.device_ids, devices)
            if event.is_gpu and devices and not groups(ids, devices, event.span):
                continue
            placement, state = place(state, event)
            if not event.is_gpu or devices == 0:
                assert placement.device is None
            elif event.span > 1:
                assert placement.devices in groups(ids, devices, event.span)
            elif ids:
                assert placement.device in ids
            else:
                assert placement.device is not None
                assert before[placement.device] == min(before)

        on_device = [device for p in state.placed.values() for device in p.devices]
        assert state.everybody.counts == tuple(on_device.count(n) for n in range(devices))
        assert all(min(ring.counts) >= 0 for ring in state.versions.values())

    for worker_id in tuple(state.placed):
        state = release(state, worker_id)
    assert (state.placed, state.versions) == ({}, {})
    assert not any(state.everybody.counts)


@given(placements=st.lists(requests, max_size=20))
def test_a_server_without_gpus_never_places_on_one(placements: list[Request]) -> None:
    """
    `number_of_gpu=0`, whatever a model's own file says.
    """
    state = empty(0)

    for request in placements:
        if request.worker_id not in state.placed:
            placement, state = place(state, request)
            assert placement.device is None


@given(devices=st.integers(1, 5), workers=st.integers(1, 20), keep=st.integers(0, 20))
def test_scaling_down_a_balanced_version_leaves_it_balanced(
    devices: int, workers: int, keep: int
) -> None:
    """
    Then up again needs no move.
    """
    _, state = place_all(empty(devices), [Request(n, ECHO) for n in range(workers)])

    order = retire_order(state, range(workers))
    for worker_id in order[: max(0, workers - keep)]:
        state = release(state, worker_id)

    assert sorted(order) == list(range(workers))
    assert max(state.everybody.counts) - min(state.everybody.counts) <= 1
