"""Which cores a worker is pinned to (8.9), and that it gets there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.errors import SettingsError
from stoker.supervisor.core_pinning import CorePinning, pin_process, read_processors
from stoker.supervisor.core_shares import (
    LauncherArgs,
    Processor,
    parse_launcher_args,
    share,
    thread_environment,
)
from stoker.supervisor.versions import VersionKey

#: Two nodes of four cores with two threads each, numbered as Linux does.
TWO_NODES = [Processor(n, n % 8, n % 8 // 4) for n in range(16)]
KEY = VersionKey("m", "1.0")


@pytest.mark.parametrize(
    ("text", "count", "shares"),
    [
        ("", 1, [range(8)]),
        ("", 2, [range(4), range(4, 8)]),
        ("", 3, [range(2), range(2, 4), range(4, 6)]),
        ("--node_id 1", 2, [(4, 5), (6, 7)]),
        ("--node-id=1 --use-logical-core", 2, [(4, 5, 6, 7), (12, 13, 14, 15)]),
        ("--use_logical_core", 2, [range(8), range(8, 16)]),
        ("--ncores_per_instance 3", 2, [(0, 1, 2), (3, 4, 5)]),
        ("--ninstances 4", 1, [(0, 1)]),
        ("--core_list 1,3,5,7 --ncores_per_instance 2", 2, [(1, 3), (5, 7)]),
        ("--latency_mode", 2, [range(4), range(4, 8)]),
        ("--throughput_mode", 2, [range(4), range(4, 8)]),
    ],
)
def test_workers_share_the_cores_out_as_the_program_would(text, count, shares):
    """
    torch.backends.xeon.run_cpu with `--ninstances N --rank i`.
    """
    args = parse_launcher_args(text)

    found = [share(args, TWO_NODES, count, index) for index in range(count)]

    assert found == [tuple(each) for each in shares]


@given(
    st.builds(
        LauncherArgs,
        st.integers(0, 40),
        st.integers(0, 40),
        st.lists(st.integers(0, 40), max_size=6).map(tuple),
        st.integers(-1, 3),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    st.lists(
        st.builds(Processor, st.integers(0, 30), st.integers(0, 9), st.integers(0, 2)),
        min_size=1,
        max_size=20,
        unique_by=lambda processor: processor.number,
    ),
    st.integers(1, 50),
    st.data(),
)
def test_every_worker_has_cores_that_are_there(args, processors, count, data):
    """
    Whatever is asked for, and however many workers there are.
    """
    index = data.draw(st.integers(0, count - 1))

    cores = share(args, processors, count, index)

    assert cores
    assert set(cores) <= {processor.number for processor in processors}
    assert len(set(cores)) == len(cores)


def test_workers_do_not_overlap_while_there_are_cores_enough():
    for count in range(1, 9):
        shares = [share(LauncherArgs(), TWO_NODES, count, index) for index in range(count)]
        taken = [core for cores in shares for core in cores]
        assert len(taken) == len(set(taken))


@pytest.mark.parametrize(
    "text",
    ["--ninstances", "--ninstances many", "word", "--unheard_of 3", "--core_list 1,2", "'"],
)
def test_what_cannot_be_understood_refuses_the_start(text):
    """
    Pinning that silently is not what was asked for would be found by its slowness.
    """
    with pytest.raises(SettingsError, match="cpu_launcher_args"):
        parse_launcher_args(text)


def test_what_changes_nothing_here_is_named():
    args = parse_launcher_args("--enable_jemalloc --log_path /x --ninstances 2 --rank 1")

    assert args.moot == ("--enable_jemalloc", "--log_path", "--rank")
    assert args.instances == 2


def test_threads_are_told_how_many_cores_there_are():
    assert thread_environment(LauncherArgs(), (0, 1))["OMP_NUM_THREADS"] == "2"
    assert "KMP_AFFINITY" in thread_environment(LauncherArgs(), (0, 1))
    assert "KMP_AFFINITY" not in thread_environment(LauncherArgs(uses_logical=True), (0, 1))


def test_when_their_number_changes_the_others_move():
    """
    Without a restart, and each only when its share is another one.
    """
    moved = []
    pinning = CorePinning(
        LauncherArgs(), TWO_NODES, lambda pid, cores: moved.append((pid, tuple(cores)))
    )

    pinning.look({KEY: ([9000], {9000: 71})})
    pinning.look({KEY: ([9000], {9000: 71})})
    assert pinning.environment([9000, 9001], 9001)["OMP_NUM_THREADS"] == "4"
    pinning.place([9000, 9001], 9001, 72)
    pinning.look({KEY: ([9000, 9001], {9000: 71, 9001: 72})})

    assert moved == [(71, tuple(range(8))), (72, (4, 5, 6, 7)), (71, (0, 1, 2, 3))]


def test_a_worker_that_may_not_be_moved_harms_nobody():
    def refuse(pid, cores):
        raise PermissionError("not yours")

    pinning = CorePinning(LauncherArgs(), TWO_NODES, refuse)

    pinning.look({KEY: ([9000], {9000: 71})})
    pinning.place([9000], 9000, 71)


def test_a_process_is_pinned_with_its_threads_and_children():
    """
    A model's threads are there when its worker's share changes.
    """
    program = (
        "import subprocess, sys, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, process_group=0
    )
    try:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        last = max(os.sched_getaffinity(0))

        pin_process(process.pid, [last])

        threads = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]
        assert len(threads) == 2
        for pid in (*threads, child):
            assert os.sched_getaffinity(pid) == {last}
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        process.stdout.close()


def test_pinning_what_is_gone_says_so():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    with pytest.raises(ProcessLookupError):
        pin_process(process.pid, [0])


def test_the_hosts_processors_are_read(tmp_path: Path):
    """
    As far as the kernel tells; only those that this process may use.
    """
    assert {each.number for each in read_processors()} == os.sched_getaffinity(0)

    number = min(os.sched_getaffinity(0))
    topology = tmp_path / f"cpu/cpu{number}/topology"
    topology.mkdir(parents=True)
    (topology / "core_id").write_text("3\n")
    (topology / "physical_package_id").write_text("1\n")
    (tmp_path / "node/node5").mkdir(parents=True)
    (tmp_path / "node/node5/cpulist").write_text(f"{number}-{number},99\n")

    assert Processor(number, (1 << 16) | 3, 5) in read_processors(tmp_path)
