"""Processes that have loaded a model, of which the workers of that version are forked.

    spawn -> is there a parent?  ready:   fork now
                                 loading: wait for it
                                 none:    start one, and wait for it

One per version with `preload_model`, from its first worker until nobody wants
workers of it any more.  A parent that cannot load, or that no fork would
survive, is the failure of every worker that waited for it.  It serves nothing
itself and nothing is lost with it: its workers live on, and the next one that
is wanted brings another.

Source: contracts/mms.md 13; the other end is `worker/preload.py`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from stoker.errors import ProtocolError
from stoker.logs import get_logger
from stoker.supervisor import actions as a
from stoker.supervisor.guarding import guarded
from stoker.supervisor.launcher import OnOutput, WorkerCommand
from stoker.supervisor.output_pipes import OutputPipes
from stoker.supervisor.template import PARENT_PID, READY, Template
from stoker.supervisor.versions import Failure, VersionSpec
from stoker.supervisor.worker_output import Stream
from stoker.wire import packing

log = get_logger("preload")

_TEXTS: Final = 3
_MAX_TEXT: Final = 4000


@dataclass(frozen=True, slots=True)
class ParentCommand:
    """What to start: interpreter, environment, folder, label, and the LOAD."""

    python: str
    env: Mapping[str, str] = field(repr=False)
    cwd: str | None
    label: str
    load: dict[str, Any] = field(repr=False)


class Parent(Template):
    """One such process.

    Args:
        output: Write ends for its stdout and stderr; closed once it has them.
    """

    def __init__(self, command: ParentCommand, output: tuple[int, int]) -> None:
        super().__init__(command.python, (), command.env)
        self._command = command
        self._output = output
        self.failure: Failure | None = None

    def _execute(self, descriptor: int) -> subprocess.Popen[bytes]:
        command = self._command
        out, err = self._output
        load = os.memfd_create("stoker-load", os.MFD_CLOEXEC)
        try:
            with open(load, "wb", closefd=False) as file:
                file.write(packing.pack(command.load))
            os.lseek(load, 0, os.SEEK_SET)
            argv = [command.python, "-P", "-m", "stoker.worker.preload"]
            return subprocess.Popen(
                [*argv, str(descriptor), str(load), command.label],
                env={**command.env, PARENT_PID: str(os.getpid())},
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                pass_fds=[descriptor, load],
            )
        finally:
            for fd in (load, out, err):
                os.close(fd)

    def _hear(self, word: bytes) -> bool:
        if word == READY:
            return True
        self.failure = _read_failure(word)
        return False

    def spawn_worker(self, command: WorkerCommand, output: tuple[int, int]) -> int | None:
        return self.spawn(command.worker_argv, command.env, command.cwd, output)


def _read_failure(word: bytes) -> Failure | None:
    """Why it cannot be, as it said; None if it said nothing (anything may have happened)."""
    try:
        texts = packing.unpack(word)
    except ProtocolError:
        return None
    if not isinstance(texts, list) or len(texts) != _TEXTS:
        return None
    code, message, last_line = (str(text)[:_MAX_TEXT] for text in texts)
    return Failure(message, last_line, code == "load_out_of_memory")


class Brood:
    """One parent and who waits for it; it is what forks the workers (`launcher.Nursery`)."""

    def __init__(self, parent: Parent, output_id: int, output: OutputPipes) -> None:
        self.parent = parent
        self.output_id = output_id
        self.output = output
        self.waiting: dict[int, a.Spawn] = {}
        #: What the loop watches: the socket of the parent while it loads.
        self.watched_fd = -1

    def spawn(self, command: WorkerCommand, output: tuple[int, int]) -> int | None:
        """The pid of a worker, or None when the parent is gone."""
        pid = self.parent.spawn_worker(command, output)
        return pid if pid is not None and _is_our_child(pid) else None


def _is_our_child(pid: int) -> bool:
    """User code runs in the parent, and could have named any process."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    except ChildProcessError:
        log.error("a preloaded model named a process that is not ours", worker_pid=pid)
        return False


class Parents:
    """All of them, by version.

    Args:
        command_of: What to start for a version.
        spawn_now: Its parent is ready; a worker may be forked.
        refuse: A worker that waited will never be.
        open_output, feed, close_output: Where their output goes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        command_of: Callable[[VersionSpec], ParentCommand],
        spawn_now: Callable[[a.Spawn], None],
        refuse: Callable[[int, Failure], None],
        open_output: Callable[[int, str, str, int], None],
        feed: OnOutput,
        close_output: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._command_of = command_of
        self._spawn_now = spawn_now
        self._refuse = refuse
        self._open_output = open_output
        self._feed = feed
        self._close_output = close_output
        self._broods: dict[VersionSpec, Brood] = {}
        #: Output is kept by number; workers have positive ones.
        self._last_id = 0

    def of(self, spec: VersionSpec) -> Brood | None:
        return self._broods.get(spec)

    def pids(self) -> set[int]:
        found = (brood.parent.pid for brood in self._broods.values())
        return {pid for pid in found if pid is not None}

    def may_fork(self, action: a.Spawn) -> bool:
        """Whether this worker can be forked now; else it waits, for `spawn_now` or `refuse`."""
        spec = action.spec
        brood = self._broods.get(spec)
        if brood is not None and brood.watched_fd < 0 and brood.parent.has_ended:
            self._end(spec)  # it died since
            brood = None
        if brood is None:
            brood = self._start(spec)
        elif brood.watched_fd < 0:
            return True
        brood.waiting[action.worker_id] = action
        return False

    def forget(self, worker_id: int) -> bool:
        """A worker that waits is not wanted any more; False if it does not wait."""
        for spec, brood in self._broods.items():
            if brood.waiting.pop(worker_id, None) is not None:
                if not brood.waiting:
                    # Whoever wanted it has given up; nobody else has an eye on how long it takes.
                    self._end(spec)
                return True
        return False

    def sweep(self, is_wanted: Callable[[VersionSpec], bool]) -> None:
        """Parents of versions without any workers go: the model's memory is worth more."""
        for spec in [spec for spec in self._broods if not is_wanted(spec)]:
            self._end(spec)

    def release(self, spec: VersionSpec) -> None:
        """The version is gone with all its workers."""
        self._end(spec)

    def close(self) -> None:
        for spec in list(self._broods):
            self._end(spec)

    # -- one of them ----------------------------------------------------------

    def _start(self, spec: VersionSpec) -> Brood:
        self._last_id -= 1
        output_id = self._last_id
        out, out_end = os.pipe2(os.O_CLOEXEC)
        err, err_end = os.pipe2(os.O_CLOEXEC)
        for fd in (out, err):
            os.set_blocking(fd, False)
        parent = Parent(self._command_of(spec), (out_end, err_end))
        self._open_output(output_id, spec.model, spec.version, 0)
        heard = guarded(partial(self._feed, output_id))
        output = OutputPipes(self._loop, {Stream.STDOUT: out, Stream.STDERR: err}, heard)
        brood = self._broods[spec] = Brood(parent, output_id, output)
        parent.start()
        log.info("model is loaded once for all workers", model=spec.model, version=spec.version)
        brood.watched_fd = parent.fileno()
        if brood.watched_fd < 0:
            # Later: who asked is not ready for the answer.
            self._loop.call_soon(guarded(self._settle), spec, brood)
        else:
            self._loop.add_reader(brood.watched_fd, guarded(self._settle), spec, brood)
        return brood

    def _settle(self, spec: VersionSpec, brood: Brood) -> None:
        """The parent has said its first word, or has died."""
        if self._broods.get(spec) is not brood:
            return
        is_ready = brood.parent.is_ready
        if not is_ready and brood.parent.is_starting:
            return
        self._unwatch(brood)
        waiting, brood.waiting = brood.waiting, {}
        if is_ready:
            log.info("model is loaded", model=spec.model, version=spec.version)
            for action in waiting.values():
                self._spawn_now(action)
            return
        brood.output.drain()
        failure = brood.parent.failure or Failure(
            "The process that loads the model for all workers ended.", "It ended while loading."
        )
        self._end(spec)
        for worker_id in waiting:
            self._refuse(worker_id, failure)

    def _end(self, spec: VersionSpec) -> None:
        brood = self._broods.pop(spec, None)
        if brood is None:
            return
        self._unwatch(brood)
        brood.parent.stop()
        brood.output.close()
        self._close_output(brood.output_id)

    def _unwatch(self, brood: Brood) -> None:
        if brood.watched_fd >= 0:
            self._loop.remove_reader(brood.watched_fd)
            brood.watched_fd = -1
