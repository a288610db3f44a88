"""Asking the handler `fates.py`, and what it has noted."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from facts import wait_until
from live_server import HANDLERS, Answer, Later, Server

from stoker.archives.pack import Parts, pack


def ask(server: Server, model: str, text: str, **headers: str) -> Answer:
    return server.predict(model, text, **headers)


def ask_later(server: Server, model: str, text: str, **headers: str) -> Later:
    return server.later(ask, server, model, text, **headers)


def noted(server: Server, model: str, word: str = "began") -> list[str]:
    """What the handlers of a model have noted, in order, without the first word."""
    path = server.home / "gates" / f"noted-{model}"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{word} ")]


def deaths(server: Server, model: str) -> int:
    count: int = server.describe(model).get("deaths", {"count": 0})["count"]
    return count


def pids(server: Server, model: str) -> list[int]:
    return [worker["pid"] for worker in server.workers(model)]


def replace_supervisor(server: Server, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal it, and wait until the next one serves."""
    lives = len(server.logged("supervisor ready"))
    server.supervisor.send_signal(number)
    wait_until(lambda: len(server.logged("supervisor ready")) > lives, "a successor serves")


def pending(server: Server, model: str) -> int:
    waiting: int = server.describe(model)["jobQueueStatus"]["pendingRequests"]
    return waiting


def packer(store: Path, folder: Path) -> Callable[..., str]:
    """Packs `fates.py` with a model-config.yaml into a model store; returns its name there."""

    def make(model: str, function: str = "handle", **config: Any) -> str:
        file = folder / f"{model}.yaml"
        file.write_text("".join(f"{key}: {value}\n" for key, value in config.items()))
        handler = f"{HANDLERS / 'fates.py'}:{function}"
        return pack(Parts(model, handler, config_file=file), store, force=True).name

    return make
