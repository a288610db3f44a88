"""Promise 9: what probes are told is so, and who cannot answer them is replaced."""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from facts import wait_until
from impatient import SERVE
from live_server import Server
from process_titles import title_of

from stoker.archives.pack import Parts, pack

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def watched(_orphans_come_to_us: None) -> Iterator[Server]:
    """One server for all that is stuck in it; each test leaves it serving."""
    server = Server(program=("-c", SERVE))
    try:
        server.wait_started()
        server.register("m", "echo:handle")
        yield server
        # Its log has the stacks of those that were stuck: nothing else is wrong with it.
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    finally:
        server.destroy()


def probe(server: Server, path: str, listener: str = "inference") -> tuple[int, object]:
    answer = server.ask(listener, "GET", f"/health/{path}")
    return answer.status, answer.json


def spin(server: Server, role: str) -> None:
    (server.home / "gates" / role).touch()


def serving_process(server: Server) -> int:
    """The one below gunicorn's master; 0 while there is none."""
    master = psutil.Process(server.process.pid).children()
    below = [
        child.pid for each in master if "frontend" in title_of(each) for child in each.children()
    ]
    return below[0] if below else 0


def is_well(server: Server) -> bool:
    with suppress(OSError, ValueError, http.client.HTTPException):
        server.read_addresses()
        return probe(server, "ready/m") == (200, {"ready": True})
    return False


def test_a_model_is_ready_when_a_worker_takes_its_requests(server, model):
    """
    Neither while it loads, nor without workers; and a name that nobody registered is a 404.
    """
    gate = server.gate("start")
    query = {"model_name": model, "handler": "slow_start:handle", "initial_workers": 1}
    server.manage("POST", "/models", **query)
    gate.wait_reached()
    loading = probe(server, f"ready/{model}")

    gate.let_go()
    wait_until(lambda: probe(server, f"ready/{model}")[0] == 200, "it has loaded")
    answer = server.predict(model)
    loaded = [probe(server, f"ready/{model}{version}") for version in ("", "/1.0")]
    server.manage("PUT", f"/models/{model}", min_worker=0, synchronous="true")

    assert loading == (503, {"ready": False})
    assert answer.status == 200
    assert loaded == [(200, {"ready": True})] * 2
    assert probe(server, f"ready/{model}", "management") == (503, {"ready": False})
    assert probe(server, "ready/nobody")[0] == 404
    assert probe(server, "ready") == (200, {"ready": True})


def test_the_server_is_ready_when_what_it_loads_at_start_is_loaded(start_server, tmp_path):
    """
    Until then it lives, and a balancer sends nobody.
    """
    handlers = os.path.join(os.path.dirname(os.path.dirname(__file__)), "e2e", "handlers")
    pack(Parts("slow", os.path.join(handlers, "slow_start.py")), tmp_path)
    gates = tmp_path / "gates"
    gates.mkdir()
    os.mkfifo(gates / "start")
    server = start_server(
        *("--model-store", str(tmp_path), "--load-models", "slow.mar"),
        *("--default-workers-per-model", "1"),
        E2E_GATES=str(gates),
    )

    before = [probe(server, path) for path in ("live", "ready", "ready/slow")]
    os.close(os.open(gates / "start", os.O_WRONLY))
    wait_until(lambda: probe(server, "ready")[0] == 200, "it has loaded")

    assert before == [(200, {"live": True}), (503, {"ready": False}), (503, {"ready": False})]
    assert probe(server, "ready/slow") == (200, {"ready": True})


@pytest.mark.parametrize("how", ["stopped", "in a loop without end"])
def test_a_stuck_supervisor_is_not_ready_and_is_replaced(watched, how):
    """
    The frontend lives and says so at once: nobody shall restart it for the other's sake.
    """
    stuck, frontend = watched.supervisor.pid, serving_process(watched)
    if how == "stopped":
        os.kill(stuck, signal.SIGSTOP)
    else:
        spin(watched, "supervisor")
        wait_until(lambda: not (watched.home / "gates" / "supervisor").exists(), "it is stuck")

    asked_at = time.monotonic()
    live = probe(watched, "live")
    live_s = time.monotonic() - asked_at
    ready = watched.ask("inference", "GET", "/health/ready")
    wait_until(lambda: is_well(watched), "another one serves")

    assert (live, live_s < 1.0) == ((200, {"live": True}), True)
    assert ready.status == 503
    assert ready.json["type"] == "ServiceUnavailableException"
    assert watched.supervisor.pid != stuck
    assert serving_process(watched) == frontend
    assert watched.predict("m", "still here").text == "still here"


def test_a_stuck_frontend_process_is_replaced(watched):
    """
    By its master, which nobody has to tell; the supervisor and its workers go on.
    """
    stuck, supervisor = serving_process(watched), watched.supervisor.pid
    worker = watched.workers("m")[0]["pid"]
    spin(watched, "frontend")
    wait_until(lambda: not (watched.home / "gates" / "frontend").exists(), "it is stuck")

    wait_until(lambda: serving_process(watched) != stuck and is_well(watched), "another one serves")

    assert watched.supervisor.pid == supervisor
    assert watched.workers("m")[0]["pid"] == worker
