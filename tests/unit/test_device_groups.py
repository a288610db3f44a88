"""The workers of a version by device: on engine, placement and describe together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor import actions as a
from stoker.supervisor.device_groups import (
    Group,
    changed,
    even_groups,
    from_text,
    share_out,
    to_text,
)
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.devices import Device
from stoker.supervisor.group_descriptions import describe_groups

GPUS = tuple(Device(index, f"GPU-{index}", "fake", 1 << 30) for index in range(3))
BOUNDS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=5)


def groups_of(bounds):
    return tuple(Group(n, low, low + extra) for n, (low, extra) in enumerate(bounds))


@given(BOUNDS, st.lists(st.integers(0, 9), min_size=5, max_size=5), st.integers(0, 40))
def test_shares_keep_to_the_bounds_of_each_device_and_to_the_sum(bounds, counts, wanted):
    groups = groups_of(bounds)

    shares = share_out(groups, dict(enumerate(counts)), wanted)

    assert all(g.min_workers <= shares[g.device] <= g.max_workers for g in groups)
    low, high = sum(g.min_workers for g in groups), sum(g.max_workers for g in groups)
    assert sum(shares.values()) == min(max(wanted, low), high)


def test_who_has_room_for_the_most_grows_first():
    """
    DJL Serving's rule (6.5).
    """
    groups = (Group(0, 1, 2), Group(1, 1, 5))

    assert share_out(groups, {0: 1, 1: 1}, 3) == {0: 1, 1: 2}
    assert share_out(groups, {0: 2, 1: 5}, 6) == {0: 2, 1: 4}


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 6))
def test_an_even_share_differs_by_one_at_most(low, extra, devices):
    groups = even_groups(range(devices), low, low + extra)

    assert sum(g.min_workers for g in groups) == low
    assert sum(g.max_workers for g in groups) == low + extra
    assert all(g.min_workers <= g.max_workers for g in groups)
    assert max(g.max_workers for g in groups) - min(g.max_workers for g in groups) <= 1


@given(BOUNDS)
def test_what_is_kept_is_read_again(bounds):
    groups = groups_of(bounds)

    assert from_text(to_text(groups), range(len(bounds))) == groups
    assert from_text(to_text(groups), range(len(bounds) + 1)) == (), "another host"


@pytest.mark.parametrize("text", ["", "0:1-2", "nonsense", "0:1-2,1:9"])
def test_what_cannot_be_read_says_nothing(text):
    assert from_text(text, (0, 1)) == ()


def test_one_device_is_changed_and_the_others_stay():
    groups = (Group(0, 1, 2), Group(1, 1, 2))

    assert changed(groups, (1,), None, 5) == (Group(0, 1, 2), Group(1, 1, 5))
    assert changed(groups, (), 3, None) == (Group(0, 3, 3), Group(1, 3, 3))


# -- with workers ---------------------------------------------------------------


@pytest.fixture
def places(stage):
    """The stage with real devices."""
    stage.engine.versions._devices = places = DevicePlaces(GPUS)
    return places


def serve(stage, low, high, groups=(), **spec):
    key = stage.register(device_type="gpu", group_devices=(0, 1, 2), queue_capacity=1000, **spec)
    stage.scale(key, low, high, groups=groups)
    for worker_id in stage.alive(key):
        stage.load(worker_id)
    return key


def on_devices(stage, key):
    crew = stage.served(key).crew
    found = {0: 0, 1: 0, 2: 0}
    for slot in crew.slots.staying:
        found[slot.worker.device] += 1
    return found


def test_every_device_has_its_group(stage, places):
    key = serve(stage, 3, 6)

    assert on_devices(stage, key) == {0: 1, 1: 1, 2: 1}
    assert [
        (group["gpu_id"], group["min_workers"], group["max_workers"], len(group["workers"]))
        for group in describe_groups(stage.served(key), places)
    ] == [(0, 1, 2, 1), (1, 1, 2, 1), (2, 1, 2, 1)]


def test_a_device_with_bounds_of_its_own_keeps_to_them(stage, places):
    """
    Whatever else is placed there.
    """
    groups = (Group(0, 2, 2), Group(1, 0, 0), Group(2, 1, 3))

    key = serve(stage, 3, 5, groups)
    stage.served(key).crew.resize(5, stage.now)
    stage.end_turn()

    assert on_devices(stage, key) == {0: 2, 1: 0, 2: 3}
    stage.served(key).crew.resize(3, stage.now)
    stage.end_turn()
    assert on_devices(stage, key) == {0: 2, 1: 0, 2: 1}


def test_load_brings_workers_where_there_is_room_for_the_most(stage, places):
    key = serve(stage, 3, 9, (Group(0, 1, 1), Group(1, 1, 2), Group(2, 1, 6)))

    for _ in range(500):
        stage.submit()
    stage.advance(1.0)
    for worker_id in stage.alive(key):
        if stage.worker(worker_id).in_hand:
            stage.answer(worker_id)
    stage.advance(1.0)

    found = on_devices(stage, key)
    assert found[0] == 1
    assert found[2] > found[1]


def test_who_is_replaced_stays_on_its_device(stage, places):
    key = serve(stage, 3, 3)
    victim = next(s.worker for s in stage.served(key).crew.slots.staying if s.worker.device == 1)

    stage.exit(victim.worker_id, "signal 11")

    assert on_devices(stage, key) == {0: 1, 1: 1, 2: 1}
    assert stage.took(a.Spawn)[-1].device == 1


def test_bounds_that_move_from_one_device_to_another_move_the_workers(stage, places):
    """
    The sum is as it was; a look at that alone would do nothing.
    """
    key = serve(stage, 2, 2, (Group(0, 2, 2), Group(1, 0, 0), Group(2, 0, 0)))

    stage.scale(key, 2, 2, groups=(Group(0, 0, 0), Group(1, 2, 2), Group(2, 0, 0)))

    assert on_devices(stage, key) == {0: 0, 1: 2, 2: 0}


def test_a_version_without_groups_is_shown_by_the_devices_it_is_on(stage, places):
    """
    TorchServe says one number for all; its workers are spread, and shown so.
    """
    key = stage.register(device_type="gpu")
    stage.scale(key, 4, 4)

    groups = describe_groups(stage.served(key), places)

    assert [(group["gpu_id"], group["max_workers"]) for group in groups] == [(0, 2), (1, 1), (2, 1)]
    assert sum(len(group["workers"]) for group in groups) == 4


def test_on_the_cpu_there_is_one_group(stage):
    key = stage.serve(workers=2)

    (group,) = describe_groups(stage.served(key), DevicePlaces(()))

    assert (group["gpu_id"], group["min_workers"], len(group["workers"])) == (None, 2, 2)


def test_a_version_that_leaves_leaves_every_device(stage, places):
    key = serve(stage, 3, 6)

    stage.unregister(key)
    for worker_id in stage.alive(key):
        stage.exit(worker_id, "exit 0")

    assert stage.resolved == {"unregister": {}}
    assert all(places.of_worker(worker_id) == () for worker_id in range(20))
