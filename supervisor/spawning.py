"""Starting one worker's process: forked of one that is there, executed, or behind a sandbox.

Starting costs the loop about a millisecond (vfork: no `preexec_fn`, no
`user`/`group`).  What a process needs beyond that is set from here once it
runs: core limit and OOM score through `prlimit` and `/proc`, which need no code
between fork and exec.  A worker asks for its own death signal
(PR_SET_PDEATHSIG) and compares `STOKER_PARENT_PID`, see `worker_environment.py`.

A worker in a sandbox is started by bwrap, which forks it into its namespaces and
tells us its pid; bwrap itself stays as its parent.

Source: design sections 4 and 7; contracts/torchserve.md 8.3.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import resource
import select
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stoker.errors import SpawnFailed
from stoker.logs import get_logger
from stoker.supervisor.launcher import Nursery, WorkerCommand
from stoker.supervisor.output_pipes import READ_BYTES
from stoker.supervisor.reaping import kill_group
from stoker.supervisor.worker_output import Stream

log = get_logger("processes")

#: How long bwrap may take until there is a process; the loop waits for it.
SANDBOX_DEADLINE_S: Final = 5.0
_MAX_INFO_BYTES: Final = 4096
#: Added to our own OOM score: when memory runs out, a worker goes before we do.
OOM_SCORE_STEP: Final = 300
MAX_OOM_SCORE: Final = 1000


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process that runs.

    Attributes:
        popen: None for one that a nursery or bwrap forked.
        monitor: bwrap, where it is the worker's parent.
        streams: Reading ends of what it writes.
    """

    pid: int
    popen: subprocess.Popen[bytes] | None
    monitor: subprocess.Popen[bytes] | None
    streams: dict[Stream, int]


def spawn(command: WorkerCommand, nursery: Nursery | None) -> Spawned:
    """Start it, the fastest way there is.

    Raises:
        SpawnFailed: It could not be; nothing is left of the try.
    """
    fds: list[int] = []
    try:
        for _ in Stream:
            fds += os.pipe2(os.O_CLOEXEC)
        out, out_end, err, err_end = fds
        if command.group is not None:
            # It holds them open while there is no supervisor, and opens /dev/stdout anew.
            for end in (out_end, err_end):
                os.fchown(end, -1, command.group)
                os.fchmod(end, 0o660)
        popen = monitor = None
        pid = None
        if command.parent is not None:
            pid = command.parent.spawn(command, (out_end, err_end))
            if pid is None:
                raise OSError(errno.ECHILD, "the process that has loaded its model is gone")
        elif command.wrapper:
            monitor, pid = _execute_wrapped(command, out_end, err_end)
        elif nursery is not None and command.may_fork:
            pid = nursery.spawn(command, (out_end, err_end))
        if pid is None:
            popen = _execute(command.argv, command, out_end, err_end)
            pid = popen.pid
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in a name
        reason = error.strerror if isinstance(error, OSError) else None
        if isinstance(error, _NoSandbox):
            reason = _last_words(fds[2]) or reason
        for fd in fds:
            os.close(fd)
        raise SpawnFailed(
            f"A worker process could not be started: {reason or type(error).__name__}.",
            reason=reason or type(error).__name__,
        ) from error
    os.close(out_end)
    os.close(err_end)
    # Our ends only: a handler's print still blocks rather than fail.
    os.set_blocking(out, False)
    os.set_blocking(err, False)
    _confine(pid)
    return Spawned(pid, popen, monitor, {Stream.STDOUT: out, Stream.STDERR: err})


class _NoSandbox(OSError):
    """bwrap ended, or said nothing in time."""


def _execute_wrapped(
    command: WorkerCommand, out_end: int, err_end: int
) -> tuple[subprocess.Popen[bytes], int]:
    """bwrap, and the pid of the worker in it.  Raises OSError; then nothing runs."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(told, "rb", buffering=0) as pipe:
        try:
            argv = (*command.wrapper, "--info-fd", str(tell), "--", *command.argv)
            monitor = _execute(argv, command, out_end, err_end, (tell,))
        finally:
            os.close(tell)
        try:
            return monitor, _read_child(pipe.fileno())
        except BaseException:
            kill_group(monitor.pid)
            monitor.wait()
            raise


def _read_child(told: int) -> int:
    """The pid in what bwrap writes about its child: a small JSON document."""
    until = time.monotonic() + SANDBOX_DEADLINE_S
    text = b""
    poll = select.poll()
    poll.register(told, select.POLLIN)
    while len(text) < _MAX_INFO_BYTES and poll.poll(max(0.0, until - time.monotonic()) * 1000):
        piece = os.read(told, _MAX_INFO_BYTES)
        text += piece
        if b"}" in text:
            return int(json.loads(text)["child-pid"])
        if not piece:
            raise _NoSandbox(0, "bwrap ended")
    raise _NoSandbox(0, "bwrap did not start the worker in time")


def _last_words(err: int) -> str:
    os.set_blocking(err, False)
    try:
        lines = os.read(err, READ_BYTES).decode("utf-8", "replace").strip().splitlines()
    except BlockingIOError:
        return ""
    return lines[-1] if lines else ""


def _execute(
    argv: Sequence[str],
    command: WorkerCommand,
    out_end: int,
    err_end: int,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        env=command.env,
        cwd=command.cwd,
        stdin=subprocess.DEVNULL,
        stdout=out_end,
        stderr=err_end,
        start_new_session=True,
        pass_fds=pass_fds,
    )


def _confine(pid: int) -> None:
    """No core dumps (they hold models and requests), and first to go when memory is short."""
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_CORE)
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, hard))
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(str(_worker_oom_score()))
    except (OSError, ValueError) as error:
        log.debug("worker not confined", worker_pid=pid, reason=str(error))


@functools.cache
def _worker_oom_score() -> int:
    with open("/proc/self/oom_score_adj") as file:
        return min(MAX_OOM_SCORE, int(file.read()) + OOM_SCORE_STEP)
