"""Clients of a live server that are many, or that mind their own business."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from live_server import Server

DRIVER = Path(__file__).parents[1] / "benchmarks" / "driver.py"


class Crowd:
    """Clients that ask again at once, in a process of their own; `figures` waits for its end."""

    def __init__(self, server: Server, model: str, connections: int, seconds: float) -> None:
        command = [sys.executable, str(DRIVER)]
        command += [f"{server.addresses['inference']}/predictions/{model}"]
        command += ["--connections", str(connections), "--duration", str(seconds)]
        command += ["--warmup", "0.5", "--pid", str(server.process.pid)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)

    @property
    def is_there(self) -> bool:
        return self._process.poll() is None

    def figures(self) -> dict[str, Any]:
        output, _ = self._process.communicate(timeout=60)
        figures: dict[str, Any] = json.loads(output)
        return figures

    def end(self) -> None:
        if self.is_there:
            self._process.kill()
        self._process.communicate()


@dataclass
class Bystander:
    """One client that wants nothing special, from entering to leaving."""

    server: Server
    model: str
    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Bystander:
        self._is_over = threading.Event()
        self._has_answer = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._has_answer.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def p99_s(self) -> float:
        ordered = sorted(self.took_s)
        return ordered[int(0.99 * (len(ordered) - 1))]

    def _run(self) -> None:
        address = urlsplit(self.server.addresses["inference"]).netloc
        client = http.client.HTTPConnection(address, timeout=20)
        while not self._is_over.is_set():
            started = time.monotonic()
            try:
                client.request("POST", f"/predictions/{self.model}", b"bystander")
                response = client.getresponse()
                if (response.status, response.read()) != (200, b"bystander"):
                    self.failures.append(f"status {response.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                client.close()
            self.took_s.append(time.monotonic() - started)
            self._has_answer.set()
            self._is_over.wait(0.005)
        client.close()


def memory_bytes(server: Server) -> dict[str, int]:
    """Of the processes that hear strangers, without what they share."""
    roles = {"frontend": server.frontend, "supervisor": server.supervisor}
    found = {}
    for role, process in roles.items():
        info = process.memory_info()
        found[role] = info.rss - info.shared
    return found


def count_connections(server: Server) -> int:
    """As the frontend sees them."""
    established = server.frontend.net_connections("tcp")
    return sum(each.status == psutil.CONN_ESTABLISHED for each in established)
