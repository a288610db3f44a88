"""Processes of workers that left their worker's group and outlived it.

A worker's end is its process group's end; who called `setsid`, or forked twice,
is not in that group.  But all of them become our children when their parents
have ended, because we are their subreaper, and they show whose they are: by a
variable of the environment they were executed with, or by the title that they
have in common with the worker they were forked from.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from stoker.logs import get_logger
from stoker.process_start import start_ticks

#: In the environment of every worker, and so of all that it executes.
MARK: Final = "STOKER_WORKER_ID"
_MARKED: Final = re.compile(rb"(?:^|\0)%b=(\d+)\0" % MARK.encode())
_TITLED: Final = re.compile(rb"stoker: worker (\d+) ")

log = get_logger("supervisor")


def kill_escaped(running: Mapping[int, tuple[int, int]], ours: Collection[int]) -> int:
    """Kill what workers left behind that are gone.  Returns how many were found.

    Args:
        running: Slot and pid of every worker that runs, by its id.
        ours: Children that are no worker's, whatever they look like.
    """
    known = {pid for _, pid in running.values()}
    found = 0
    for pid in _children():
        if pid in known or pid in ours or not _is_left_over(pid, running):
            continue
        found += 1
        log.warning("a process outlived its worker and is killed", child=pid)
        try:
            # A child that only we reap, so the number is still its own.
            os.kill(pid, signal.SIGKILL)
        except OSError as error:
            log.error("a process cannot be killed", child=pid, reason=str(error))
    return found


def _children() -> list[int]:
    """Our children; none on a kernel that does not list them."""
    children: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            children += map(int, (task / "children").read_bytes().split())
        except OSError:
            continue  # a thread that has just ended
    return children


def _is_left_over(pid: int, running: Mapping[int, tuple[int, int]]) -> bool:
    born = start_ticks(pid)
    if born is None:
        return False  # a zombie; others reap it
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            marked = _MARKED.search(file.read())
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            titled = _TITLED.match(file.read())
    except OSError:
        return False
    if marked is not None:
        return int(marked[1]) not in running
    if titled is None:
        return False
    owners = [worker for slot, worker in running.values() if slot == int(titled[1])]
    # A successor in the same place is younger than what its predecessor left.
    return all((start_ticks(owner) or 0) > born for owner in owners)
