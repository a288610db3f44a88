"""How many processors there are to use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoker.supervisor.processors import usable_processors

NOWHERE = Path("/no/such/place")


@pytest.mark.parametrize(
    ("text", "processors"),
    [("50000 100000", 1), ("150000 100000", 2), ("100000 100000", 1), ("max 100000", 8), ("", 8)],
)
def test_a_containers_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, processors: int
) -> None:
    """
    A container of one processor on a host of 64 must not get 64 workers per model.
    """
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    file = tmp_path / "cpu.max"
    file.write_text(text)

    assert usable_processors(file, NOWHERE) == processors


@pytest.mark.parametrize(("quota", "processors"), [("300000", 3), ("-1", 8)])
def test_the_older_form_of_the_limit_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, processors: int
) -> None:
    """
    Hosts with control groups of version 1 are still around.
    """
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    (tmp_path / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu.cfs_period_us").write_text("100000")

    assert usable_processors(NOWHERE, tmp_path) == processors


def test_where_nothing_limits_the_scheduler_decides() -> None:
    """
    `taskset` and cpusets count.
    """
    assert usable_processors(NOWHERE, NOWHERE) == len(os.sched_getaffinity(0))
