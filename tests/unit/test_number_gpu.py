"""`number_gpu`: the first workers of a model use a GPU each, the rest none (MMS's page)."""

from __future__ import annotations

import pytest

from stoker.supervisor import actions as a
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.devices import Device
from stoker.supervisor.engine import Engine

GPUS = tuple(Device(index, f"GPU-{index}", "fake", 1 << 30) for index in range(2))


@pytest.fixture
def stage(make_stage):
    """One whose host has two GPUs."""
    stage = make_stage()
    stage.places = DevicePlaces(GPUS)
    stage.engine = Engine(stage.places)
    return stage


def devices(stage, key):
    return [stage.worker(worker_id).device for worker_id in stage.alive(key)]


def scaled(stage, key, workers, number_gpu):
    """As the call does: how they are placed, then how many."""
    stage.served(key).spec.number_gpu = number_gpu
    stage.scale(key, workers)


@pytest.mark.parametrize(
    ("workers", "number_gpu", "placed"),
    [
        (3, None, [0, 1, 0]),
        (3, 0, [None, None, None]),
        (3, 1, [0, None, None]),
        (3, 2, [0, 1, None]),
        (3, 5, [0, 1, None]),
        (1, 2, [0]),
    ],
)
def test_so_many_workers_use_a_gpu_as_are_asked_for(stage, workers, number_gpu, placed):
    """
    "If number_gpu exceeds the number of available GPUs, the rest of workers will run on CPU."
    """
    key = stage.register(device_type="gpu")

    scaled(stage, key, workers, number_gpu)

    assert devices(stage, key) == placed


def test_without_gpus_it_means_nothing(make_stage):
    """
    A script that was written for a larger machine works on a small one.
    """
    stage = make_stage()
    stage.places = DevicePlaces(())
    stage.engine = Engine(stage.places)
    key = stage.register(device_type="cpu", number_gpu=2)

    stage.scale(key, 2)

    assert devices(stage, key) == [None, None]


def test_a_worker_changes_sides_when_it_is_done(stage):
    """
    It finishes what it holds; another takes its place where it should be.
    """
    key = stage.serve(workers=2, device_type="gpu")
    assert devices(stage, key) == [0, 1]
    first, second = stage.alive(key)
    job = stage.submit()
    stage.submit()

    scaled(stage, key, 2, 1)
    assert [x.worker_id for x in stage.took(a.SendLeave)] == [second]
    stage.answer(second)
    stage.exit(second, "exit 0")

    assert stage.alive(key)[0] == first
    assert devices(stage, key) == [0, None]
    assert job not in stage.refused
    scaled(stage, key, 2, 2)
    stage.load(stage.alive(key)[1])
    scaled(stage, key, 2, 2)
    moved = stage.alive(key)[1]
    stage.exit(moved, "exit 0")
    assert devices(stage, key) == [0, 1]


def test_a_replacement_is_on_the_side_of_its_predecessor(stage):
    """
    A crash is no reason to compute elsewhere.
    """
    key = stage.register(device_type="gpu", number_gpu=1)
    stage.scale(key, 2)
    for worker_id in stage.alive(key):
        stage.load(worker_id)
    first, _ = stage.alive(key)

    stage.exit(first, "SIGSEGV")
    stage.advance(2)

    assert sum(device is not None for device in devices(stage, key)) == 1
