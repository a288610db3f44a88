"""Scenarios about beginnings and ends: cold start, and a worker killed under load."""

from __future__ import annotations

import http.client
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from process_tree import resident_bytes, wait_idle
from scenarios import ECHO, SERVER_FLAGS

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "examples"))

from local_server import Client, LocalServer, ServerError  # noqa: E402

BODY = b"x" * 100
KILL_CLIENTS = 4
#: Answers before the kill, so that the server is warm and the worker busy.
STEADY_ANSWERS = 200
RECOVERY_TIMEOUT_S = 60.0


def cold_start() -> dict[str, Any]:
    """From `stoker serve` on the command line to the first answer of a model, and idle memory."""
    started = time.perf_counter()
    with LocalServer(*SERVER_FLAGS, python_path=(HERE,)) as server:
        listening_s = time.perf_counter() - started
        server.register(**ECHO.query())
        with server.client() as client:
            answer = client.ask("POST", f"/predictions/{ECHO.name}", BODY)
        if answer.status != 200 or answer.body != BODY:
            raise ServerError(f"the first answer was {answer.status}: {answer.body!r}")
        first_answer_s = time.perf_counter() - started
        wait_idle([server.pid])
        return {
            "listening_s": listening_s,
            "first_answer_s": first_answer_s,
            "idle_pss_bytes": resident_bytes([server.pid]),
        }


def worker_kill() -> dict[str, Any]:
    """SIGKILL to the only worker while clients ask; until the next good answer."""
    with LocalServer(*SERVER_FLAGS, python_path=(HERE,)) as server:
        server.register(**ECHO.query())
        with server.client("management") as manager:
            described = manager.ask("GET", f"/models/{ECHO.name}").json()
        pid = int(described[0]["workers"][0]["pid"])
        watch = _Watch(server.inference)
        return watch.kill_and_wait(pid)


class _Watch:
    """Clients that ask without pause and note what they get, and when."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._changed = threading.Condition()
        self._answers = 0
        self._killed_at = float("inf")
        self._recovered_at = 0.0
        self._failures: Counter[str] = Counter()
        self._is_over = False

    def kill_and_wait(self, pid: int) -> dict[str, Any]:
        threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(KILL_CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            self._wait_for(lambda: self._answers >= STEADY_ANSWERS, "answer steadily")
            self._killed_at = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            self._wait_for(lambda: self._recovered_at > 0, "answer again")
        finally:
            self._is_over = True
            for thread in threads:
                thread.join(RECOVERY_TIMEOUT_S)
        return {
            "next_answer_s": self._recovered_at - self._killed_at,
            "failed_requests": sum(self._failures.values()),
            "failures": dict(self._failures),
        }

    def _wait_for(self, fact: Any, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(fact, RECOVERY_TIMEOUT_S):
                raise ServerError(f"the server did not {what}: {dict(self._failures)}")

    def _ask(self) -> None:
        client = Client(self._base_url, RECOVERY_TIMEOUT_S)
        while not self._is_over:
            sent_at = time.perf_counter()
            try:
                status = str(client.ask("POST", f"/predictions/{ECHO.name}", BODY).status)
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
                client = Client(self._base_url, RECOVERY_TIMEOUT_S)
            self._note(status, sent_at)

    def _note(self, status: str, sent_at: float) -> None:
        now = time.perf_counter()
        with self._changed:
            if status != "200":
                self._failures[status] += 1
            else:
                self._answers += 1
                # Answers that were under way at the kill do not count as recovery.
                if sent_at > self._killed_at and not self._recovered_at:
                    self._recovered_at = now
            self._changed.notify_all()
