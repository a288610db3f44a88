"""Telling the kernel's memory killer from somebody's kill -9."""

from __future__ import annotations

from stoker.supervisor.oom_kills import OomKills


def test_the_kernels_own_kills_are_told_from_others(tmp_path):
    """
    The kernel counts its kills; one that did not raise the count was not its.
    """
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 5\noom_kill 3\ndrop_pagecache 0\n")
    kills = OomKills(vmstat)

    assert kills.have_come() is False
    vmstat.write_text("nr_free_pages 5\noom_kill 4\n")
    assert kills.have_come() is True
    assert kills.have_come() is False


def test_without_the_kernels_count_nobody_knows(tmp_path):
    """
    Old kernels and sandboxes do not show it.
    """
    assert OomKills(tmp_path / "missing").have_come() is None
    (tmp_path / "vmstat").write_text("nr_free_pages 5\n")
    assert OomKills(tmp_path / "vmstat").have_come() is None


def test_this_kernel_has_been_asked():
    """
    Whatever it says, it is no error.
    """
    assert OomKills().have_come() in (False, None)
