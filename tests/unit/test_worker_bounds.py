"""How many workers a scale call wants: what it leaves out, and what it cannot mean."""

from __future__ import annotations

import pytest

from stoker.errors import InvalidParameter
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.device_groups import Group
from stoker.supervisor.worker_bounds import wanted_bounds


@pytest.fixture
def wanted(stage):
    """Of a version with two to four workers."""

    def wanted(gpus=(), **asked):
        key = stage.register(group_devices=gpus, device_type="gpu")
        crew = stage.served(key).crew
        crew.bound(2, 4, ())
        return wanted_bounds(crew, gpus, Arguments(asked))

    return wanted


@pytest.mark.parametrize(
    ("asked", "bounds"),
    [
        ({}, (2, 4)),
        ({"min_workers": 3}, (3, 4)),
        ({"min_workers": 6}, (6, 6)),
        ({"max_workers": 1}, (1, 1)),
        ({"min_workers": 0, "max_workers": 0}, (0, 0)),
    ],
)
def test_what_a_call_leaves_out_stays_unless_the_rest_could_not_be(wanted, asked, bounds):
    """
    One number is enough to scale with, in either direction.
    """
    assert wanted(**asked) == (*bounds, ())


@pytest.mark.parametrize("asked", [{"min_workers": 3, "max_workers": 2}, {"min_workers": -1}])
def test_impossible_numbers_are_refused(wanted, asked):
    with pytest.raises(InvalidParameter) as refused:
        wanted(**asked)

    assert refused.value.details == {"parameter": "max_worker"}


def test_counting_by_device_the_others_keep_what_they_have(wanted):
    """
    What was said in all before is shared out first.
    """
    bounds = wanted((0, 1), per_device=True, devices="gpu1", min_workers=3, max_workers=5)

    assert bounds == (4, 7, (Group(0, 1, 2), Group(1, 3, 5)))


@pytest.mark.parametrize("devices", ["gpu7", "cpu", "cpu0"])
def test_a_device_that_the_version_does_not_use_is_refused(wanted, devices):
    with pytest.raises(InvalidParameter):
        wanted((0, 1), per_device=True, devices=devices, min_workers=1)
