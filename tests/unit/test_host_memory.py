"""What is free, in a control group and without one."""

from __future__ import annotations

import psutil

from stoker.supervisor.host_memory import available_bytes

MIB = 1 << 20


def group(folder, limit, used, cache=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\nfile 9\n")


def test_the_tightest_group_counts(tmp_path):
    """
    In a container the host's figure would invite the memory killer.
    """
    membership = tmp_path / "membership"
    membership.write_text("0::/a.slice/b.service\n")
    group(tmp_path / "a.slice", 20 * MIB, 15 * MIB)
    group(tmp_path / "a.slice/b.service", 30 * MIB, 21 * MIB)

    assert available_bytes(tmp_path, membership) == 5 * MIB


def test_cache_that_nobody_uses_is_free(tmp_path):
    membership = tmp_path / "membership"
    membership.write_text("0::/\n")
    group(tmp_path, 20 * MIB, 20 * MIB, cache=6 * MIB)

    assert available_bytes(tmp_path, membership) == 6 * MIB


def test_without_a_limit_it_is_the_hosts(tmp_path):
    membership = tmp_path / "membership"
    membership.write_text("0::/\n")
    group(tmp_path, "max", MIB)

    assert 0 < available_bytes(tmp_path, membership) <= psutil.virtual_memory().total
    assert 0 < available_bytes(tmp_path, tmp_path / "nothing")
