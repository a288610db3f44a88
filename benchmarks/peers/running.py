"""A peer for the length of a `with` block; stopped by its process ids."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psutil
from process_tree import tree
from scenarios import Model

from peers.environments import Environment
from peers.peer import MODELS_FOLDER, Peer, Place

STOP_TIMEOUT_S = 15.0
POLL_S = 0.02
LOG_TAIL_BYTES = 8000
#: A queue that no steady load fills.
ROOMY = 2048
PORTS = (20000, 32000)


class PeerFailed(Exception):
    """It did not start or did not answer; said in the table."""


class RunningPeer:
    """Started and answering for every model when entered, all of it gone when left."""

    def __init__(
        self,
        peer: Peer,
        environment: Environment,
        models: tuple[Model, ...],
        queue_size: int = ROOMY,
    ) -> None:
        self.peer = peer
        self.home = Path(tempfile.mkdtemp(prefix="peer-", dir="/tmp"))
        port = free_ports(5)
        serves = {model.handler for model in peer.models}
        wanted = tuple(model for model in models if model.handler in serves)
        self.place = Place(environment.bin, self.home, port, port + 1, wanted, queue_size)
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: dict[int, psutil.Process] = {}
        #: From the command line to the first good answer of the first model.
        self.first_answer_s = 0.0
        #: From listening until all models were registered, where that is by HTTP.
        self.registered_s = 0.0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, model: str) -> str:
        return self.peer.url(self.place, model)

    def worker_pids(self) -> list[int]:
        """Those that run handlers; not the ones they were forked from."""
        return [
            process.pid
            for process in tree([self.pid])
            if self.peer.is_worker(" ".join(process.cmdline())) and not process.children()
        ]

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self) -> None:
        place, peer = self.place, self.peer
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PYTHON")
        }
        environment |= {
            "PATH": f"{place.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(MODELS_FOLDER),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.home),
            **peer.environment(place),
        }
        started = time.perf_counter()
        with (self.home / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                peer.command(place),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env=environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + peer.start_timeout_s
        self._wait_listening(deadline)
        listening = time.perf_counter()
        peer.after_start(place)
        self.registered_s = time.perf_counter() - listening
        for model in place.models:
            self._wait_answer(model, deadline)
            if not self.first_answer_s:
                self.first_answer_s = time.perf_counter() - started

    def _wait_listening(self, deadline: float) -> None:
        ports = [self.place.port]
        if type(self.peer).after_start is not Peer.after_start:
            ports.append(self.place.management_port)
        for port in ports:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                self._check(deadline, "did not listen")

    def _wait_answer(self, model: Model, deadline: float) -> None:
        said = ""
        while True:
            try:
                status, text = self._ask(model)
                if status == 200:
                    return
                said = f"{status} {text}"
            except (OSError, http.client.HTTPException) as error:
                said = repr(error)
            self._check(deadline, f"did not answer for {model.name} ({said})")

    def _ask(self, model: Model) -> tuple[int, str]:
        parts = urlsplit(self.url(model.name))
        body = self.peer.body(model, model.body_bytes)
        connection = http.client.HTTPConnection("127.0.0.1", parts.port or 80, timeout=30)
        try:
            connection.request("POST", parts.path, body.data, {"Content-Type": body.content_type})
            answer = connection.getresponse()
            return answer.status, answer.read()[:200].decode(errors="replace")
        finally:
            connection.close()

    def _check(self, deadline: float, what: str) -> None:
        assert self._process is not None
        # Children that leave the tree when their parent ends must be found later.
        self._seen.update({process.pid: process for process in tree([self.pid])})
        if self._process.poll() is not None:
            raise PeerFailed(f"ended with status {self._process.returncode}: {self._last_words()}")
        if time.monotonic() > deadline:
            raise PeerFailed(f"{what}: {self._last_words()}")
        time.sleep(POLL_S)

    def _last_words(self) -> str:
        """The last line that speaks of an error, or the last at all."""
        with contextlib.suppress(FileNotFoundError):
            log = (self.home / "output.log").read_bytes()[-LOG_TAIL_BYTES:]
            lines = [line.strip() for line in log.decode(errors="replace").splitlines()]
            lines = [line for line in lines if len(line) > 2]
            errors = [line for line in lines if "Error" in line or "ERROR" in line]
            return (errors or lines or [""])[-1][:200]
        return ""

    def stop(self) -> None:
        """SIGTERM to the root, SIGKILL to whatever of its tree is left."""
        process = self._process
        if process is not None:
            self._seen.update({found.pid: found for found in tree([process.pid])})
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_TIMEOUT_S)
            # psutil remembers when each began, so a reused id is not ours.
            for found in self._seen.values():
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.kill()
            process.wait()
            psutil.wait_procs(self._seen.values(), timeout=STOP_TIMEOUT_S)
        shutil.rmtree(self.home, ignore_errors=True)


def free_ports(count: int) -> int:
    """The first of several free ones in a row.

    Below those the kernel gives to outgoing connections, and below 32768:
    one peer has no room for higher numbers.
    """
    for _ in range(100):
        first = random.randrange(*PORTS)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise PeerFailed("no free ports")
