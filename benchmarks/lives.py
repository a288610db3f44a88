"""Scenarios about beginnings and ends: cold start, idle memory, a worker killed under load."""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from measuring import Figures, say
from peers.environments import Environment
from peers.peer import Body, Peer
from peers.running import PeerFailed, RunningPeer
from process_tree import resident_by_role, resident_bytes, wait_idle
from scenarios import ECHO, Model
from targets import Client, ServerError, local_server, raw_body

HERE = Path(__file__).resolve().parent
KILL_CLIENTS = 8
#: Answers before the kill, so that the server is warm and the worker busy.
STEADY_ANSWERS = 200
RECOVERY_TIMEOUT_S = 60.0
#: Some peers never answer again.
PEER_PATIENCE_S = 15.0

#: The same echo, by a worker that imports torch.
TORCH_ECHO = Model("torch_echo", "torch_echo_handler:echo")


def of_ours(repeats: int) -> Figures:
    """Medians of cold start, idle memory and both kills; each run needs a server of its own."""
    scenarios: tuple[tuple[str, Callable[[], Figures]], ...] = (
        ("cold start", cold_start),
        ("worker kill", lambda: worker_kill(ECHO)),
        ("worker kill, torch imported", lambda: worker_kill(TORCH_ECHO)),
    )
    results: Figures = {}
    for name, scenario in scenarios:
        runs = [scenario() for _ in range(repeats)]
        figures = {
            key: statistics.median(run[key] for run in runs if key in run) for key in runs[0]
        }
        results[name] = {**figures, "runs": runs}
        say(f"{name}: {_in_words(figures)}")
    return results


def of_peer(peer: Peer, environment: Environment) -> Figures:
    """Cold start and idle memory, and a kill where its workers can be told apart."""
    results: Figures = {}
    with RunningPeer(peer, environment, (ECHO,)) as running:
        wait_idle([running.pid], timeout_s=10)
        idle = {
            "first_answer_s": running.first_answer_s,
            "idle_pss_bytes": resident_bytes([running.pid]),
        }
        results["cold start"] = idle
        workers = running.worker_pids()
        if workers:
            body = peer.body(ECHO, ECHO.body_bytes)
            watch = _Watch(running.url(ECHO.name), body, PEER_PATIENCE_S)
            results["worker kill"] = watch.kill_and_wait(workers)
    for name, figures in results.items():
        say(f"{peer.name}, {name}: {_in_words(figures)}")
    return results


def of_peers(peers: tuple[Peer, ...], environments: dict[str, Environment]) -> Figures:
    results: Figures = {}
    for peer in peers:
        if peer.name in environments:
            try:
                results[peer.name] = of_peer(peer, environments[peer.name])
            except (PeerFailed, RuntimeError) as error:
                results[peer.name] = {"failed": str(error)}
                say(f"{peer.name}: {error}")
    return results


def _in_words(figures: Figures) -> str:
    words = []
    for key, value in figures.items():
        if key.endswith("_bytes"):
            words.append(f"{key.removesuffix('_bytes')} {value / 1e6:.0f} MB")
        elif key.endswith("_s"):
            words.append(f"{key.removesuffix('_s')} {value:.3f} s")
        elif isinstance(value, (int, float)):
            words.append(f"{key} {value:.0f}")
    return ", ".join(words)


def cold_start() -> Figures:
    """From `stoker serve` on the command line to the first answer of a model, and idle memory."""
    started = time.perf_counter()
    with local_server() as server:
        listening_s = time.perf_counter() - started
        server.register(**ECHO.query())
        with server.client() as client:
            answer = client.ask("POST", f"/predictions/{ECHO.name}", b"x" * 100)
        if answer.status != 200 or answer.body != b"x" * 100:
            raise ServerError(f"the first answer was {answer.status}: {answer.body!r}")
        first_answer_s = time.perf_counter() - started
        wait_idle([server.pid])
        by_role = resident_by_role([server.pid])
        return {
            "listening_s": listening_s,
            "first_answer_s": first_answer_s,
            "idle_pss_bytes": sum(by_role.values()),
            **{f"{role}_pss_bytes": pss for role, pss in by_role.items()},
        }


def worker_kill(model: Model) -> Figures:
    """SIGKILL to the only worker while clients ask; until the next good answer."""
    with local_server() as server:
        server.register(**model.query())
        with server.client("management") as manager:
            described = manager.ask("GET", f"/models/{model.name}").json()
        pid = int(described[0]["workers"][0]["pid"])
        wait_idle([server.pid])
        url = f"{server.inference}/predictions/{model.name}"
        watch = _Watch(url, raw_body(model, model.body_bytes), RECOVERY_TIMEOUT_S)
        return watch.kill_and_wait([pid])


class _Watch:
    """Clients that ask without pause and note what they get, and when."""

    def __init__(self, url: str, body: Body, patience_s: float) -> None:
        self._url = url
        self._path = urlsplit(url).path
        self._body = body
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._answers = 0
        self._killed_at = float("inf")
        self._recovered_at = 0.0
        self._failures: Counter[str] = Counter()
        self._is_over = False

    def kill_and_wait(self, pids: list[int]) -> Figures:
        threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(KILL_CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            if not self._wait_for(lambda: self._answers >= STEADY_ANSWERS):
                raise PeerFailed(f"it did not answer steadily: {dict(self._failures)}")
            self._killed_at = time.perf_counter()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            self._wait_for(lambda: self._recovered_at > 0)
        finally:
            self._is_over = True
            for thread in threads:
                thread.join(self._patience_s + 1)
        is_back = self._recovered_at > 0
        return {
            "next_answer_s": self._recovered_at - self._killed_at if is_back else float("inf"),
            "failed_requests": sum(self._failures.values()),
        }

    def _wait_for(self, fact: Callable[[], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(fact, self._patience_s)

    def _ask(self) -> None:
        client = Client(self._url, self._patience_s)
        while not self._is_over:
            sent_at = time.perf_counter()
            try:
                answer = client.ask("POST", self._path, self._body.data, self._body.content_type)
                status = str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
                client = Client(self._url, self._patience_s)
                # A server that refuses connections would be asked in a tight loop.
                time.sleep(0.01)
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


def as_json(value: Any) -> Any:
    """JSON has no infinity; `never` is what it means here."""
    if isinstance(value, float) and value == float("inf"):
        return "never"
    return value
