"""What runs worker processes, and in which words one speaks to it.

A `Launcher` runs workers somewhere: on this host (`processes.py`), on another
one, or in a test's head.  A `Nursery` starts them faster than it could.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from stoker.supervisor.exits import ExitStatus
from stoker.supervisor.worker_output import Stream

OnExit = Callable[[int, ExitStatus], None]
OnOutput = Callable[[int, Stream, bytes], None]


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """What to execute; `label` is MODEL:VERSION, for the log."""

    argv: tuple[str, ...]
    # Holds the worker's token: never in a repr, so never in a log.
    env: Mapping[str, str] = field(repr=False)
    cwd: str | None
    label: str
    #: Modules worth having imported before the fork, like "torch".
    preload: tuple[str, ...] = ()
    #: False: only an interpreter of its own will do.
    may_fork: bool = True
    #: Stands before argv: bwrap and what it shows.
    wrapper: tuple[str, ...] = ()
    #: A group that may open its pipes: that of a worker who is another user.
    group: int | None = None
    #: The process that has loaded its model; only a fork of that will do.
    parent: Nursery | None = None

    @property
    def worker_argv(self) -> tuple[str, ...]:
        """The worker's own arguments, behind interpreter, `-P` and `-m stoker.worker`."""
        return self.argv[4:]


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A running worker; `started_at` is the wall's clock, in seconds."""

    worker_id: int
    pid: int
    started_at: float


class Launcher(Protocol):
    """Runs workers somewhere: here, on another host, or in a test's head."""

    def start(
        self, worker_id: int, command: WorkerCommand, on_exit: OnExit, on_output: OnOutput
    ) -> WorkerProcess:
        """Start a worker; `on_exit` is called exactly once, after the last `on_output`.

        Neither is called before `start` has returned.

        Raises:
            SpawnFailed: The process could not be started; `on_exit` is not called.
            ShuttingDown: After `close`.
        """
        ...

    def signal(self, worker_id: int, number: signal.Signals) -> bool:
        """Signal the worker alone; False when it has ended."""
        ...

    def stop(self, worker_id: int) -> bool:
        """Kill the worker and all it started, now; False when it has ended."""
        ...

    def list(self) -> tuple[WorkerProcess, ...]:
        """Workers whose end has not been reported yet."""
        ...


class Nursery(Protocol):
    """Starts workers faster than an interpreter of their own would."""

    def spawn(self, command: WorkerCommand, output: tuple[int, int]) -> int | None:
        """The pid of a worker that is our child, or None: start it the ordinary way."""
        ...
