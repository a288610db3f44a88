"""The servers under load, whoever they are: where to send what, and whose CPU counts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from peers.peer import Body
from peers.running import RunningPeer, free_ports
from scenarios import MODELS, SERVER_FLAGS, Model

HERE = Path(__file__).resolve().parent
MODELS_FOLDER = HERE / "models"
sys.path.append(str(HERE.parent / "examples"))

from local_server import Client as Client  # noqa: E402
from local_server import LocalServer as LocalServer  # noqa: E402
from local_server import ServerError as ServerError  # noqa: E402

OURS = "stoker"
BARE = "bare ASGI"
BARE_START_S = 20.0


def raw_body(model: Model, size: int) -> Body:
    return Body(b"x" * size)


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load.

    Attributes:
        models: Names of what it serves.
        pids: Roots of its process tree; without, its CPU time is not known.
    """

    name: str
    url: Callable[[str], str]
    pids: tuple[int, ...]
    models: frozenset[str]
    body: Callable[[Model, int], Body] = raw_body


def local_server(*flags: str) -> LocalServer:
    """A stoker with our handlers in reach; later flags win."""
    return LocalServer(*SERVER_FLAGS, *flags, python_path=(MODELS_FOLDER,))


def ours(server: LocalServer, models: tuple[Model, ...] = MODELS) -> Target:
    """A stoker that serves `models`, registered now."""
    for model in models:
        server.register(**model.query())
    return Target(
        OURS,
        lambda model: f"{server.inference}/predictions/{model}",
        (server.pid,),
        frozenset(model.name for model in models),
    )


def of_peer(running: RunningPeer) -> Target:
    return Target(
        running.peer.name,
        running.url,
        (running.pid,),
        frozenset(model.name for model in running.place.models),
        running.peer.body,
    )


@contextlib.contextmanager
def bare_asgi() -> Iterator[Target]:
    """The echo with nothing around it that everything is compared with."""
    with script_server(HERE / "layers" / "asgi_echo.py") as (port, pid):
        yield Target(
            BARE,
            lambda model: f"http://127.0.0.1:{port}/{model}",
            (pid,),
            frozenset({"echo", "echo32", "size"}),
        )


@contextlib.contextmanager
def script_server(script: Path) -> Iterator[tuple[int, int]]:
    """One of our one-file servers, given a port; yields the port and its process id."""
    port = free_ports(1)
    process = subprocess.Popen([sys.executable, str(script), str(port)], stdin=subprocess.DEVNULL)
    try:
        _await_answer(port, process)
        yield port, process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, 9)
            process.wait()


def _await_answer(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + BARE_START_S
    while True:
        with contextlib.suppress(OSError), Client(f"http://127.0.0.1:{port}") as client:
            if client.ask("POST", "/predictions/echo", b"hello").status == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServerError("a server of the benchmarks did not start")
        time.sleep(0.02)
