"""A diamond under load while one node's workers are killed again and again.

`make workflow-soak` takes a minute; with the tests it is a few seconds
(WORKFLOW_SOAK_S).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

import psutil
import pytest
from facts import DEADLINE_S, wait_until
from live_server import HANDLERS

from stoker.archives.war import pack_war

pytestmark = pytest.mark.slow

SOAK_S = float(os.environ.get("WORKFLOW_SOAK_S", "8"))
CLIENTS = 64
KILL_EVERY_S = 1.0
#: Of the node that suffers: replacements of what dies again and again are not made at once.
WORKERS = 8
DIAMOND = """
models:
  retry-attempts: 2
  timeout-ms: 5000
dag:
  pre: [left, right]
  left: [join]
  right: [join]
"""


class Client(threading.Thread):
    """Asks until told to stop; what it got, by status and type of error."""

    def __init__(self, address: str, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        where = urlsplit(address)
        self._place = (where.hostname or "", where.port)
        self._number = number
        self._told = stop
        self.ends: Counter[str] = Counter()

    def run(self) -> None:
        count = 0
        while not self._told.is_set():
            count += 1
            self.ends[self._ask(f"{self._number}-{count}")] += 1

    def _ask(self, word: str) -> str:
        connection = http.client.HTTPConnection(*self._place, timeout=DEADLINE_S)
        try:
            connection.request("POST", "/wfpredict/diamond", word.encode())
            answer = connection.getresponse()
            body = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            return f"{answer.status} {body['type']} {body['message']}"
        got = {side: json.loads(text)[side] for side, text in body["got"].items()}
        if got != {"left": f"{word}!", "right": f"{word}!"}:
            return f"somebody else's answer: {body}"
        return "ok"


def test_every_request_of_a_diamond_ends_while_a_nodes_workers_die(
    start_server, model_store, tmp_path
):
    """
    With an answer that is its own, or an error of a known type; and nothing is left of it.
    """
    (tmp_path / "spec.yaml").write_text(DIAMOND)
    pack_war("diamond", tmp_path / "spec.yaml", HANDLERS / "nodes.py", model_store)
    server = start_server()
    assert server.manage("POST", "/workflows", url="diamond.war").status == 200
    scaled = server.manage("PUT", "/models/diamond__left", min_worker=WORKERS, synchronous="true")
    assert scaled.status == 200
    threads = psutil.Process(server.supervisor.pid).num_threads()
    stop = threading.Event()
    clients = [Client(server.addresses["inference"], n, stop) for n in range(CLIENTS)]

    for client in clients:
        client.start()
    killed = _kill_workers(server, "diamond__left", time.monotonic() + SOAK_S)
    stop.set()
    for client in clients:
        client.join(DEADLINE_S)
    (model_store / "diamond.war").unlink()

    assert not [client for client in clients if client.is_alive()], "every request has ended"
    ends = sum((client.ends for client in clients), Counter())
    print(f"workers killed: {killed}; ends: {dict(ends)}")
    assert killed >= SOAK_S / KILL_EVERY_S / 2, "they come back"
    assert ends["ok"] > 0
    known = {"ok", "500 InternalServerException", "503 ServiceUnavailableException"}
    assert {end if end == "ok" else " ".join(end.split()[:2]) for end in ends} <= known
    picture = wait_until(
        lambda: (text := _picture(server)).count("0 queued, 0 in hand") == 4 and text,
        "no job is left",
    )
    assert "0 running" in picture
    assert psutil.Process(server.supervisor.pid).num_threads() <= threads
    # The last one's replacement may be waited for.
    wait_until(
        lambda: server.ask("inference", "POST", "/wfpredict/diamond", b"x").status == 200,
        "it answers as before",
    )


def _picture(server) -> str:
    return server.manage("GET", "/workflows/diamond", graph="svg").text


def _kill_workers(server, model: str, until: float) -> int:
    """One of them every second.  Returns how many died."""
    killed = 0
    while time.monotonic() < until:
        pids = [worker["pid"] for worker in server.workers(model) if worker["status"] == "READY"]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[0], signal.SIGKILL)
                killed += 1
        time.sleep(min(KILL_EVERY_S, max(0.0, until - time.monotonic())))
    return killed
