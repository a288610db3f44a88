"""Memory figures: real processes, a fake clock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from stoker.supervisor.residency import Residency

MIB = 1 << 20
#: A parent with a child that holds 64 MiB; says so, and leaves when told.
FAMILY = (
    "import os, sys\n"
    "child = os.fork()\n"
    "if child == 0:\n"
    "    held = bytearray(os.urandom(1) * (64 << 20)); print('held', flush=True)\n"
    "    sys.stdin.read(); os._exit(0)\n"
    "sys.stdin.read(); os.waitpid(child, 0)"
)


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.stdin.close()
    process.stdout.close()
    process.wait(20)


def test_children_count(family: subprocess.Popen[bytes]) -> None:
    """
    A handler's data loaders are the worker's memory to whoever pays for it.
    """
    residency = Residency()

    memory = residency.memory_bytes({9000: family.pid, 9001: os.getpid()}, now=0.0)

    assert memory[9000] > 64 * MIB
    assert memory[9001] > memory[9000]  # this process is the parent of them all


def test_a_figure_is_used_for_five_seconds(family: subprocess.Popen[bytes]) -> None:
    """
    Describe may be polled; the host's process table is read once for all of it.
    """
    residency = Residency(max_age_s=5.0)
    first = residency.memory_bytes({1: family.pid}, now=100.0)
    assert family.stdin is not None
    family.stdin.close()
    family.wait(20)

    assert residency.memory_bytes({1: family.pid}, now=104.9) == first
    assert residency.memory_bytes({1: family.pid}, now=105.0) == {1: 0}


def test_a_new_process_of_a_worker_is_read_at_once() -> None:
    """
    A replacement must not inherit its predecessor's figure.
    """
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait(20)
    residency = Residency()

    assert residency.memory_bytes({1: gone.pid}, now=0.0) == {1: 0}
    assert residency.memory_bytes({1: os.getpid()}, now=0.1)[1] > 0


def test_forgotten_workers_take_no_memory_of_ours() -> None:
    """
    Registering and unregistering all day leaves nothing behind.
    """
    residency = Residency()
    for worker_id in range(50):
        residency.memory_bytes({worker_id: os.getpid()}, now=float(worker_id))

    assert residency.memory_bytes({}, now=1000.0) == {}
    assert not residency._seen
