"""A stoker of our own for the length of a `with` block, and a client for it.

The examples and the benchmarks start `stoker serve` exactly as a person would,
as a child process, with every folder in one private place that goes away with
it.  Only the standard library is used, so this also shows how little a client
needs.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

START_TIMEOUT_S = 60.0
#: The server's own drain_timeout_s, and some seconds for its processes to end.
STOP_TIMEOUT_S = 45.0
#: How much of the server's log is worth showing when it does not start.
LOG_TAIL_BYTES = 3000

HOST = "127.0.0.1"
LISTENERS = ("inference", "management", "metrics")


class ServerError(Exception):
    """The server did not start, or answered something we cannot go on with."""


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One kept-alive connection; not for several threads at once."""

    def __init__(self, base_url: str, timeout_s: float = 120.0) -> None:
        parts = urlsplit(base_url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or HOST, parts.port or 80, timeout=timeout_s
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "",
        **query: Any,
    ) -> Answer:
        """Send one request and read all of its answer."""
        if query:
            path += "?" + urlencode(query)
        headers = {"Content-Type": content_type} if content_type else {}
        self._connection.request(method, path, body=body, headers=headers)
        response = self._connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())


class LocalServer:
    """Starts on entering, is gone on leaving.

    Args:
        flags: Further flags of `stoker serve`.
        ports: Where to listen; 0 is any free port.
        python_path: Folders from which handlers may be imported.
        log: Where the server's output goes; by default a file that is
            deleted with everything else.
    """

    def __init__(
        self,
        *flags: str,
        ports: tuple[int, int, int] = (0, 0, 0),
        model_store: Path | None = None,
        python_path: tuple[Path, ...] = (),
        log: Path | None = None,
    ) -> None:
        # Short on purpose: the name of a Unix socket has room for 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="stoker-", dir="/tmp"))
        self.log = log or self.home / "server.log"
        self.addresses: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        folders = {name: self.home / name for name in ("runtime", "state", "cache", "log")}
        self._command = [sys.executable, "-P", "-m", "stoker.cli", "serve"]
        for listener, port in zip(LISTENERS, ports, strict=True):
            self._command += [f"--{listener}-address", f"http://{HOST}:{port}"]
        for name, folder in folders.items():
            folder.mkdir(mode=0o700)
            self._command += [f"--{name}-dir", str(folder)]
        if model_store is not None:
            self._command += ["--model-store", str(model_store.resolve())]
        self._command += flags
        # A person's own settings must not leak into an example.
        self._environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("STOKER_", "TS_")) and key != "PYTHONPATH"
        }
        if python_path:
            joined = os.pathsep.join(str(path.resolve()) for path in python_path)
            self._environment["PYTHONPATH"] = joined

    @property
    def pid(self) -> int:
        """The launcher: the root of the server's process tree."""
        if self._process is None:
            raise ServerError("the server has not been started")
        return self._process.pid

    @property
    def inference(self) -> str:
        return self.addresses["inference"]

    @property
    def management(self) -> str:
        return self.addresses["management"]

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
        with self.log.open("ab") as log:
            # A group of its own: Ctrl-C reaches us alone, and we stop it in order.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env=self._environment,
                start_new_session=True,
            )
        self._wait_until(self._knows_addresses, "say where it listens")
        self._wait_until(self._answers_ping, "answer /ping")

    def _wait_until(self, fact: Callable[[], bool], what: str) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not fact():
            if (status := self._process.poll()) is not None:
                raise ServerError(f"the server ended with status {status}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the server did not {what} in {START_TIMEOUT_S:.0f} s:\n{self.log_tail()}"
                )
            time.sleep(0.01)

    def _knows_addresses(self) -> bool:
        try:
            written = json.loads((self.home / "runtime" / "addresses.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return False
        self.addresses = {name: written[name] for name in LISTENERS if name in written}
        return True

    def _answers_ping(self) -> bool:
        try:
            with Client(self.inference, timeout_s=5) as client:
                return client.ask("GET", "/ping").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def client(self, listener: str = "inference", timeout_s: float = 120.0) -> Client:
        return Client(self.addresses[listener], timeout_s)

    def register(self, **query: Any) -> str:
        """Register a model, wait for its workers, and return the status text."""
        query.setdefault("initial_workers", 1)
        query.setdefault("synchronous", "true")
        with self.client("management", timeout_s=300) as client:
            answer = client.ask("POST", "/models", **query)
        if answer.status != 200:
            text = answer.body.decode(errors="replace")
            raise ServerError(f"registering failed with {answer.status}: {text}")
        return str(answer.json()["status"])

    def wait(self) -> int:
        """Until the server ends by itself; returns its exit status."""
        assert self._process is not None
        return self._process.wait()

    def stop(self) -> None:
        """Orderly first; whatever is left after the deadline is killed."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def log_tail(self) -> str:
        """The end of the server's log, for a person."""
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").rstrip()
        return ""


def is_free(port: int) -> bool:
    """Could a server listen on that port right now?"""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
