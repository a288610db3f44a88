"""What a server's processes have used so far, all of them, by role.

CPU seconds hold still on a noisy machine where requests per second do not, so
they are the figure to compare.  A process that ends is not lost: the kernel adds
what it used to its parent when it is reaped.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

#: Our processes say who they are: `stoker: worker 3 echo:1.0`; before that, `-m stoker.worker`.
ROLE = re.compile(r"^stoker: (\w+)|-m stoker\.(\w+)")

#: Idle means: less than this share of one processor, for so long.
IDLE_SHARE = 0.05
IDLE_WINDOW_S = 0.5

#: Where a server's processes end and those of the machine begin.
NOT_A_SERVER = re.compile(
    r"(ba|da|fi|z|k)?sh$|make$|tmux|screen|sshd|login|su(do)?$|systemd|init$|containerd|conmon|dockerd"
)


@dataclass(frozen=True, slots=True)
class CpuSample:
    """CPU seconds since the processes began: of the whole tree, and by role."""

    total_s: float
    by_role: dict[str, float]

    def since(self, earlier: CpuSample) -> CpuSample:
        return CpuSample(
            self.total_s - earlier.total_s,
            {
                role: round(seconds - earlier.by_role.get(role, 0.0), 4)
                for role, seconds in self.by_role.items()
            },
        )


def role_of(process: psutil.Process) -> str:
    """Ours by title, a peer's by the name of its program."""
    command = process.cmdline()
    if found := ROLE.search(" ".join(command)):
        return found[1] or found[2]
    # Who sets a title without saying who it is shows the cut path of its program.
    name = process.name()
    return os.path.basename(command[0]) if "/" in name and command else name


def tree(root_pids: Iterable[int]) -> list[psutil.Process]:
    """The processes named and all below them, each once."""
    found: dict[int, psutil.Process] = {}
    for pid in root_pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                found[process.pid] = process
    return list(found.values())


def sample_cpu(root_pids: Iterable[int]) -> CpuSample:
    by_role: dict[str, float] = defaultdict(float)
    for process in tree(root_pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            own = times.user + times.system
            by_role[role_of(process)] += own + times.children_user + times.children_system
    return CpuSample(sum(by_role.values()), dict(by_role))


def wait_idle(root_pids: Iterable[int], timeout_s: float = 30.0) -> bool:
    """Wait until a server that nobody asks uses no CPU; False if it never stops.

    Imports that go on in the background after a start would otherwise be
    charged to the first requests.
    """
    pids = list(root_pids)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        before = sample_cpu(pids)
        time.sleep(IDLE_WINDOW_S)
        if sample_cpu(pids).since(before).total_s <= IDLE_SHARE * IDLE_WINDOW_S:
            return True
    return False


def resident_bytes(root_pids: Iterable[int]) -> int:
    """Memory of the whole tree, shared pages divided among those who share them (PSS)."""
    return sum(resident_by_role(root_pids).values())


def resident_by_role(root_pids: Iterable[int]) -> dict[str, int]:
    """The same by role."""
    by_role: dict[str, int] = defaultdict(int)
    for process in tree(root_pids):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            by_role[role_of(process)] += process.memory_full_info().pss
    return dict(by_role)


def roots_listening_on(port: int) -> list[int]:
    """The roots of a server we did not start, found by a port it listens on.

    Some servers listen in a child and work in its siblings, so we climb until
    we meet a shell, a system's process, or whoever started us too.
    """
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    roots = set()
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or connection.pid is None:
            continue
        if not connection.laddr or connection.laddr.port != port:
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            roots.add(_top_of_server(psutil.Process(connection.pid), own).pid)
    return sorted(roots)


def _top_of_server(process: psutil.Process, excluded: set[int]) -> psutil.Process:
    for parent in process.parents():
        if parent.pid in excluded or parent.pid == 1 or NOT_A_SERVER.match(parent.name()):
            break
        process = parent
    return process
