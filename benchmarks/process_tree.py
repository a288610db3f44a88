"""What a server's processes have used so far, all of them, by role.

CPU seconds hold still on a noisy machine where requests per second do not, so
they are the figure to compare.  A process that ends is not lost: the kernel adds
what it used to its parent when it is reaped.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

#: Text in a process's title or command line -> what we call it, first match wins.
ROLES: tuple[tuple[str, str], ...] = (
    (r"stoker.*\btemplate\b", "worker"),
    (r"stoker.*\bworker\b(?!.*frontend)", "worker"),
    (r"stoker.*\bsupervisor\b", "supervisor"),
    (r"stoker.*\bfrontend\b|\bgunicorn\b", "frontend"),
    (r"stoker.*\b(serve|launcher)\b", "launcher"),
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
    title = " ".join(process.cmdline()) or process.name()
    for pattern, role in ROLES:
        if re.search(pattern, title):
            return role
    return process.name()


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


def resident_bytes(root_pids: Iterable[int]) -> int:
    """Memory of the whole tree, shared pages divided among those who share them (PSS)."""
    total = 0
    for process in tree(root_pids):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_full_info().pss
    return total


def roots_listening_on(port: int) -> list[int]:
    """The outermost processes that listen on a local port; for servers we did not start."""
    pids = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr.port == port
        and connection.pid is not None
    }
    roots = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if not pids & {parent.pid for parent in psutil.Process(pid).parents()}:
                roots.append(pid)
    return sorted(roots)
