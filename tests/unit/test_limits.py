"""What settings allow one of the processes that serve HTTP."""

from __future__ import annotations

import pytest

from stoker.frontend.limits import Limits
from stoker.settings import Settings


@pytest.mark.parametrize("processes", [1, 3])
def test_memory_is_for_the_whole_server(processes):
    """
    An operator thinks of one machine, not of how many processes share it.
    """
    settings = Settings(max_body_memory_bytes=3000, arena_max_bytes=900)

    limits = Limits.from_settings(settings, processes)

    assert (limits.body_memory_bytes, limits.arena_bytes) == (3000 // processes, 900 // processes)


@pytest.mark.parametrize(
    ("descriptors", "connections"), [(None, 16_384), (1024, 720), (65_536, 16_384), (10, 1)]
)
def test_one_listener_does_not_take_all_files(descriptors, connections):
    """
    A flood of predictions must not keep the operator from managing models.
    """
    assert Limits.from_settings(Settings(), 1, descriptors).connections == connections


def test_defaults_of_settings_are_those_of_tests():
    """
    What is tested without settings is what an operator gets without a file.
    """
    assert Limits.from_settings(Settings()) == Limits()
