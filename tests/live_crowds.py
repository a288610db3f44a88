"""Clients of a live server that are many, or that mind their own business."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil
from live_server import Server

DRIVER = Path(__file__).parents[1] / "benchmarks" / "driver.py"
#: A bystander's 99th percentile; an idle machine shows a few milliseconds.
P99_S: Final = 0.3


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


def waited_for_processor_s(pids: Iterable[int]) -> float:
    """Seconds in which threads of these could have run and no processor was free for them.

    The kernel's count; none where it keeps none, or of who is gone.
    """
    waited_ns = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                waited_ns += int(path.read_text().split()[1])
    return waited_ns / 1e9


@dataclass
class Bystander:
    """One client that wants nothing special, from entering to leaving.

    What it waits is the server's doing, but for the time in which the server
    had no processor: on a busy machine that is most of it.
    """

    server: Server
    model: str
    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Bystander:
        self._is_over = threading.Event()
        self._has_answer = threading.Event()
        self._pids = [process.pid for process in self.server.tree()]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._has_answer.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def judge(self) -> None:
        """No request failed, and the server kept none waiting for long."""
        assert self.failures == []
        ordered = sorted(self.took_s)
        assert ordered[int(0.99 * (len(ordered) - 1))] < P99_S, ordered[-5:]

    def _run(self) -> None:
        address = urlsplit(self.server.addresses["inference"]).netloc
        client = http.client.HTTPConnection(address, timeout=20)
        while not self._is_over.is_set():
            started, waited_s = time.monotonic(), waited_for_processor_s(self._pids)
            try:
                client.request("POST", f"/predictions/{self.model}", b"bystander")
                response = client.getresponse()
                if (response.status, response.read()) != (200, b"bystander"):
                    self.failures.append(f"status {response.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                client.close()
            took_s = time.monotonic() - started
            self.took_s.append(took_s + waited_s - waited_for_processor_s(self._pids))
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
