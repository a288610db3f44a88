"""The supervisor's end of a worker template (`stoker.worker.template`).

`spawn` hands over a command and two pipes and gets a pid back within
milliseconds; whenever that cannot be, the caller starts an interpreter of its
own instead.  A template is never needed, only faster.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Final

from stoker.logs import get_logger
from stoker.supervisor.launcher import WorkerCommand
from stoker.wire import packing

log = get_logger("template")

READY: Final = b"ready"
PARENT_PID: Final = "STOKER_PARENT_PID"
#: A fork takes milliseconds; a template silent for longer is replaced.
SPAWN_DEADLINE_S: Final = 1.0
#: Room for why a model cannot be loaded.
MAX_WORD_BYTES: Final = 16 << 10
#: Between one template's end and the next one's start.
RESTART_AFTER_S: Final = 5.0


class Template:
    """One template process, started again when it dies.

    Args:
        python: The interpreter.  A worker for another one cannot be forked here.
        preload: Modules beyond ours, like "torch".
        env: What the imports see; the workers' own environment comes with each.
    """

    def __init__(self, python: str, preload: Sequence[str], env: Mapping[str, str]) -> None:
        self.python = python
        self.preload = tuple(preload)
        self._env = dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._is_ready = False
        self._not_before = 0.0

    def start(self) -> None:
        """Begin to start; returns at once.  Harmless when one is running."""
        if self._process is not None and self._process.poll() is None:
            return
        now = time.monotonic()
        if now < self._not_before:
            return
        self._not_before = now + RESTART_AFTER_S
        self.stop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = self._execute(theirs.fileno())
        except OSError as error:
            log.warning("no template", reason=str(error))
            ours.close()
            return
        finally:
            theirs.close()
        ours.settimeout(SPAWN_DEADLINE_S)
        self._socket = ours

    def _execute(self, descriptor: int) -> subprocess.Popen[bytes]:
        """The process, which has its end of the socket as `descriptor`.  Raises OSError."""
        argv = [self.python, "-P", "-m", "stoker.worker.template", str(descriptor)]
        return subprocess.Popen(
            [*argv, *self.preload],
            env={**self._env, PARENT_PID: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[descriptor],
        )

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def has_ended(self) -> bool:
        """There is no process (any more)."""
        return self._process is None or self._process.poll() is not None

    @property
    def is_ready(self) -> bool:
        """All imports are done and a fork would take milliseconds."""
        if self._socket is None:
            return False
        if not self._is_ready and select.select([self._socket], [], [], 0)[0]:
            try:
                self._is_ready = self._hear(self._socket.recv(MAX_WORD_BYTES))
            except OSError:
                self._is_ready = False
            if not self._is_ready:
                self.stop()
        return self._is_ready

    def _hear(self, word: bytes) -> bool:
        """Its first: is it ready?"""
        return word == READY

    @property
    def is_starting(self) -> bool:
        """It will say something soon: that it is ready, or nothing for ever."""
        return not self.is_ready and self._socket is not None

    def fileno(self) -> int:
        """Readable when it has become ready, or has died; -1 when there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    def spawn(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str | None, output: Sequence[int]
    ) -> int | None:
        """Fork a worker; its pid, or None if the template could not.

        Args:
            argv: The worker's own arguments, without interpreter and module.
            output: Write ends for its stdout and stderr; they stay the caller's.
        """
        if not self.is_ready or self._socket is None:
            return None
        order = packing.pack({"argv": list(argv), "env": dict(env), "cwd": cwd})
        try:
            socket.send_fds(self._socket, [order], output)
            return int(self._socket.recv(64))
        except (OSError, ValueError) as error:
            log.warning("template lost", reason=str(error) or type(error).__name__)
            self.stop()
            return None

    def stop(self) -> None:
        """End the process; its workers stay."""
        self._is_ready = False
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class TemplateNursery:
    """Templates by interpreter and preload; `launcher.Nursery`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._templates: dict[tuple[str, tuple[str, ...]], Template] = {}

    def warm(self, python: str, preload: tuple[str, ...] = ()) -> None:
        """See to it that such a template is there, soon."""
        template = self._templates.get((python, preload))
        if template is None:
            template = self._templates[python, preload] = Template(python, preload, self._env)
        template.start()

    def starting(self, python: str) -> Template | None:
        """The plain template of that interpreter while it is not ready yet, but soon will be."""
        template = self._templates.get((python, ()))
        return template if template is not None and template.is_starting else None

    def spawn(self, command: WorkerCommand, output: tuple[int, int]) -> int | None:
        """The pid of the worker, or None when no template of its interpreter is ready."""
        python = command.argv[0]
        # One without the preload is still better than a new interpreter.
        for preload in dict.fromkeys((command.preload, ())):
            template = self._templates.get((python, preload))
            if template is None:
                continue
            pid = template.spawn(command.worker_argv, command.env, command.cwd, output)
            if pid is not None:
                return pid
            template.start()
        return None

    def pids(self) -> set[int]:
        """Of the templates that run."""
        return {pid for each in self._templates.values() if (pid := each.pid) is not None}

    def close(self) -> None:
        for template in self._templates.values():
            template.stop()
