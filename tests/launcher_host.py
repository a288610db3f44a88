"""A loop with a launcher of real processes on it, and what the launcher says."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from typing import Any

import psutil

from stoker.supervisor.exits import ExitStatus
from stoker.supervisor.launcher import WorkerCommand
from stoker.supervisor.processes import LocalLauncher
from stoker.supervisor.worker_output import Stream

DEADLINE_S = 20.0


class Host:
    """A loop with a launcher, and everything the launcher told us."""

    def __init__(self, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        self.loop = loop
        self.launcher = LocalLauncher(loop, **options)
        self.exits: dict[int, ExitStatus] = {}
        self.reports: Counter[int] = Counter()
        self.output: dict[tuple[int, Stream], bytes] = {}
        self.changed = asyncio.Event()

    def run(self, worker_id: int, code: str, **options: Any) -> psutil.Process:
        """Start `python -c code` that goes on for a while; options as in `start`."""
        return psutil.Process(self.start(worker_id, code, **options))

    def start(self, worker_id: int, code: str, **options: Any) -> int:
        """Start `python -c code`; `options` override parts of the command.

        Returns its pid: of one that may have ended by now.
        """
        argv = options.pop("argv", (sys.executable, "-S", "-u", "-c", code))
        env = {"PATH": os.environ["PATH"]} | options.pop("env", {})
        command = WorkerCommand(argv, env, options.pop("cwd", "/"), "echo:1.0", **options)
        started = self.launcher.start(worker_id, command, self.on_exit, self.on_output)
        return started.pid

    def on_exit(self, worker_id: int, status: ExitStatus) -> None:
        self.reports[worker_id] += 1
        self.exits[worker_id] = status
        self.changed.set()

    def on_output(self, worker_id: int, stream: Stream, data: bytes) -> None:
        key = worker_id, stream
        self.output[key] = self.output.get(key, b"") + data
        self.changed.set()

    def wait_for(self, fact: Any) -> None:
        """Run the loop until `fact()` holds."""

        async def wait() -> None:
            while not fact():
                await self.changed.wait()
                self.changed.clear()

        self.loop.run_until_complete(asyncio.wait_for(wait(), DEADLINE_S))

    def wait_exit(self, worker_id: int) -> ExitStatus:
        self.wait_for(lambda: worker_id in self.exits)
        return self.exits[worker_id]

    def wait_output(self, worker_id: int, text: bytes) -> bytes:
        key = worker_id, Stream.STDOUT
        self.wait_for(lambda: text in self.output.get(key, b""))
        return self.output[key]


def wait_gone(pid: int) -> bool:
    """Wait until a process that is not our child is dead (a zombie of init counts)."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        os.sched_yield()
    return False


def no_pidfd(pid: int) -> int:
    raise OSError("not on this kernel")
