"""Bounds of each device, through calls and restarts (contracts/djl-serving.md 4.3, 6.1).

The real control, engine and journal, with workers that are played and GPUs
that are only named.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from stoker.errors import StokerError
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.devices import Device
from stoker.supervisor.engine import Engine

sys.path.insert(0, str(Path(__file__).parent))

from kill_points import Life

GPUS = tuple(Device(index, f"GPU-{index}", "fake", 1 << 30) for index in range(2))


class Lives(Life):
    """One life with GPUs, and as many calls as a test makes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._places = DevicePlaces(GPUS)
        self.engine = Engine(self._places, 9000, 1 << 30)

    async def live(self, *calls):
        """What every call was answered, and the groups after the last one."""
        await self.start()
        asked = (*calls, ("describe", {"model": "m", "all": False}))
        answers = [await self.ask(*call) for call in asked]
        await self.close()
        (record,) = answers.pop()["versions"]
        groups = {
            group["gpu_id"]: (group["min_workers"], group["max_workers"], len(group["workers"]))
            for group in record["groups"]
        }
        return answers, groups


@pytest.fixture
def live(tmp_path):
    for name in ("runtime", "state", "cache", "log"):
        (tmp_path / name).mkdir(mode=0o700)

    def run(*calls):
        return asyncio.run(Lives(tmp_path).live(*calls))

    return run


def register(**arguments):
    asked = {"model": "m", "handler": "h:f", "per_device": True, "synchronous": True}
    return "register", {**asked, "min_workers": 1, "max_workers": 2, **arguments}


def scale(**arguments):
    return "scale", {"model": "m", "per_device": True, "synchronous": True, **arguments}


def test_counts_of_a_registration_are_for_every_device(live):
    answers, groups = live(register())

    assert answers[0]["outcome"] == "ready"
    assert groups == {0: (1, 2, 1), 1: (1, 2, 1)}


def test_a_scale_call_may_name_one_device_and_a_restart_keeps_it(live):
    """
    What an operator said of one GPU must not be spread over both by a restart.
    """
    _, before = live(register(), scale(devices="gpu1", min_workers=3, max_workers=4))
    _, after = live()

    assert before == after == {0: (1, 2, 1), 1: (3, 4, 3)}


def test_what_is_not_named_stays_on_each_device(live):
    _, groups = live(
        register(), scale(devices="gpu0", min_workers=0, max_workers=1), scale(max_workers=5)
    )

    assert groups == {0: (0, 5, 1), 1: (1, 5, 1)}


def test_counts_for_all_of_them_are_spread_and_forget_what_was_said_of_one(live):
    """
    A TorchServe client says one number for the model.
    """
    everywhere = {"model": "m", "min_workers": 3, "max_workers": 3, "synchronous": True}
    _, before = live(register(), scale(devices="gpu1", min_workers=2), ("scale", everywhere))
    _, after = live()

    assert before == after == {0: (2, 2, 2), 1: (1, 1, 1)}


@pytest.mark.parametrize("wrong", [{"devices": "gpu7"}, {"devices": "cpu"}, {"max_workers": 0}])
def test_what_cannot_be_is_refused(live, wrong):
    answers, groups = live(register(), scale(min_workers=1, **wrong))

    assert isinstance(answers[1], StokerError)
    assert answers[1].code == "invalid_parameter"
    assert groups == {0: (1, 2, 1), 1: (1, 2, 1)}


def test_a_version_on_the_cpu_has_one_group(live):
    _, groups = live(register(devices="cpu"))

    assert groups == {None: (1, 2, 1)}
