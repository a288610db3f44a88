"""CPU seconds are summed over everything the server started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

BURN = "import time\nwhile time.process_time() < 0.15: pass\n"
#: Burns, then has a child that burns and is reaped, then another that stays.
PARENT = f"""
import subprocess, sys
{BURN}
subprocess.run([sys.executable, "-c", {BURN!r}], check=True)
child = subprocess.Popen([sys.executable, "-c", {BURN!r} + "print('ready', flush=True); input()"],
    stdin=subprocess.PIPE)
sys.stdin.readline()
child.communicate(b"\\n")
"""


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    yield process
    process.communicate(b"\n", timeout=30)


def test_children_living_and_dead_are_counted(family: subprocess.Popen[bytes]) -> None:
    """
    A worker that was replaced used CPU too; its parent inherits the account.
    """
    import process_tree

    assert family.stdout is not None
    assert family.stdout.readline() == b"ready\n"

    sample = process_tree.sample_cpu([family.pid])

    # Three burns of 0.15 s, in ticks of 10 ms.
    assert sample.total_s >= 0.4
    assert sample.total_s == pytest.approx(sum(sample.by_role.values()))


def test_a_process_that_is_gone_counts_nothing() -> None:
    """
    A peer may end during a run; the run goes on.
    """
    import process_tree

    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert process_tree.sample_cpu([process.pid]).total_s == 0.0
    assert process_tree.resident_bytes([process.pid]) == 0


def test_a_busy_process_is_not_idle_and_a_waiting_one_is() -> None:
    """
    A server may still be importing after it says that it is ready.
    """
    import process_tree

    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        was_idle = process_tree.wait_idle([busy.pid], timeout_s=0.1)
        busy.kill()
    assert not was_idle

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as waiting:
        assert process_tree.wait_idle([waiting.pid])
        waiting.communicate(b"\n")


def test_nested_roots_are_counted_once() -> None:
    """
    A forked server's master and its children may listen on the same port.
    """
    import process_tree

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        pids = [process.pid for process in process_tree.tree([os.getpid(), child.pid])]

        assert len(pids) == len(set(pids))
        assert child.pid in pids
        child.communicate(b"\n")


LISTENING_CHILD = """
import socket, subprocess, sys
code = "import socket; s = socket.create_server(('127.0.0.1', 0));"
code += "print(s.getsockname()[1], flush=True); input()"
subprocess.run([sys.executable, "-c", code])
"""


def test_a_server_that_listens_in_a_child_is_found_whole() -> None:
    """
    Its workers may be the listener's siblings; their CPU belongs to the figure.
    """
    import process_tree

    with subprocess.Popen(
        [sys.executable, "-c", LISTENING_CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())

        assert process_tree.roots_listening_on(port) == [parent.pid]
        parent.communicate(b"\n")
