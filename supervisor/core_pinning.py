"""Keeps workers on their cores: `core_shares.py` decides, here it is done.

A worker's share depends on how many its version has, so when that changes the
others move too, without a restart; only their number of threads stays what it
was when they started.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from stoker.logs import get_logger
from stoker.supervisor.core_shares import LauncherArgs, Processor, share, thread_environment
from stoker.supervisor.versions import VersionKey

log = get_logger("workers")

_SYSTEM: Final = Path("/sys/devices/system")

#: Slots of one version, and the pid of each worker that has one.
Crew = Mapping[int, int]


class CorePinning:
    """Of all workers of one supervisor.

    Args:
        pin: Moves a process with all its threads and descendants.
    """

    def __init__(
        self,
        args: LauncherArgs,
        processors: Sequence[Processor],
        pin: Callable[[int, Sequence[int]], None] | None = None,
    ) -> None:
        self._args = args
        self._processors = processors
        self._pin = pin or pin_process
        #: By pid: where it is.
        self._pinned: dict[int, tuple[int, ...]] = {}
        self._has_complained = False

    def environment(self, slots: Sequence[int], slot: int) -> dict[str, str]:
        """For a worker that is about to start in `slot`, one of `slots`."""
        return thread_environment(self._args, self._share(slots, slot))

    def _share(self, slots: Sequence[int], slot: int) -> tuple[int, ...]:
        ordered = sorted({*slots, slot})
        return share(self._args, self._processors, len(ordered), ordered.index(slot))

    def place(self, slots: Sequence[int], slot: int, pid: int) -> None:
        """One that has just started, before it has threads."""
        cores = self._share(slots, slot)
        if self._move(pid, cores):
            self._pinned[pid] = cores

    def look(self, crews: Mapping[VersionKey, tuple[Sequence[int], Crew]]) -> None:
        """Move whoever is not where it should be.

        Args:
            crews: Of every version all slots, and those that have a process.
        """
        pinned: dict[int, tuple[int, ...]] = {}
        for slots, workers in crews.values():
            for slot, pid in workers.items():
                cores = self._share(slots, slot)
                if self._pinned.get(pid) == cores or self._move(pid, cores):
                    pinned[pid] = cores
        self._pinned = pinned

    def _move(self, pid: int, cores: tuple[int, ...]) -> bool:
        try:
            self._pin(pid, cores)
        except ProcessLookupError:
            return False
        except OSError as error:
            if not self._has_complained:
                self._has_complained = True
                log.warning("a worker cannot be pinned", worker_pid=pid, why=str(error))
            return False
        log.info("worker pinned", worker_pid=pid, processors=",".join(map(str, cores)))
        return True


def pin_process(pid: int, cores: Sequence[int]) -> None:
    """Every thread of a process and of what it has started.

    Raises:
        ProcessLookupError: It is gone.
        OSError: It may not be moved, or not there.
    """
    os.sched_setaffinity(pid, cores)
    for thread in _ids(Path(f"/proc/{pid}/task")):
        try:
            os.sched_setaffinity(thread, cores)
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
        except OSError:
            continue  # it has just ended
        for child in children:
            try:
                pin_process(int(child), cores)
            except OSError:
                continue


def _ids(folder: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder)]
    except OSError:
        return []


def read_processors(system: Path = _SYSTEM) -> list[Processor]:
    """Those that this process may use; one core each where the kernel does not say."""
    nodes: dict[int, int] = {}
    for folder in system.glob("node/node[0-9]*"):
        for number in _numbers(folder / "cpulist"):
            nodes[number] = int(folder.name.removeprefix("node"))
    found = []
    for number in sorted(os.sched_getaffinity(0)):
        topology = system / f"cpu/cpu{number}/topology"
        core = _first(topology / "core_id", number)
        socket = _first(topology / "physical_package_id", 0)
        # Cores are numbered anew in every socket.
        found.append(Processor(number, socket << 16 | core, nodes.get(number, 0)))
    return found


def _first(path: Path, default: int) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return default


def _numbers(path: Path) -> list[int]:
    """`0-3,8` as numbers."""
    try:
        parts = path.read_text().strip().split(",")
    except OSError:
        return []
    numbers: list[int] = []
    for part in parts:
        first, _, last = part.partition("-")
        if first.isdigit():
            numbers += range(int(first), int(last or first) + 1)
    return numbers
