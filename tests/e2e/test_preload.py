"""preload_model: a model is loaded once, and its workers are forks (contracts/mms.md 13)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from process_titles import title_of

pytestmark = pytest.mark.slow

WEIGHTS = 64 << 20


@pytest.fixture(scope="module")
def server_flags():
    free = "http://127.0.0.1:0"
    return ("--listeners", f"{free} mms,{free} torchserve")


def register(server, model, **query):
    wanted = {"initial_workers": 3, "synchronous": "true", "preload_model": "true", **query}
    return server.manage("POST", "/models", model_name=model, handler="weights:handle", **wanted)


def loads(server):
    path = server.home / "gates" / "loads"
    return path.read_text().split() if path.exists() else []


@pytest.fixture(autouse=True)
def nothing_loaded(server):
    (server.home / "gates" / "loads").unlink(missing_ok=True)
    return


def parents(server):
    return [
        process for process in server.tree() if title_of(process).startswith("stoker: preload ")
    ]


def private_bytes(pid):
    """Of a process's memory, what is its own."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def test_all_workers_share_what_was_loaded_once(server):
    """
    One load for three workers, and each of them has a fraction of it for itself.
    """
    answer = register(server, "shared", batch_size=4)

    assert (answer.status, answer.said) == (200, "Worker scaled")
    assert len(loads(server)) == 1
    workers = server.workers("shared")
    assert len(workers) == 3
    for worker in workers:
        assert worker["memoryUsage"] > WEIGHTS
        assert private_bytes(worker["pid"]) < WEIGHTS / 2
    said = server.predict("shared").json
    assert said["weights"] == WEIGHTS
    # Loaded for nobody in particular; a worker's context says what it got.
    assert (said["loaded_for"], said["batch_size"]) == (1, 4)
    (parent,) = parents(server)
    assert parent.pid == int(loads(server)[0])
    assert parent.pid not in {worker["pid"] for worker in workers}
    assert server.manage("GET", "/models/shared").json["preloadModel"] is True


def test_a_replacement_loads_nothing(server, until):
    """
    It is a fork of the parent, which has the model.
    """
    register(server, "lasting", initial_workers=1)
    (before,) = server.workers("lasting")

    os.kill(before["pid"], signal.SIGKILL)

    def replaced():
        found = server.workers("lasting")
        return [w for w in found if w["status"] == "READY" and w["pid"] != before["pid"]]

    until(replaced, "another worker is ready")
    assert server.predict("lasting").json["weights"] == WEIGHTS
    assert len(loads(server)) == 1


def test_a_parent_that_dies_takes_nobody_with_it(server, until):
    """
    Its workers serve on; the next one that is wanted brings another parent.
    """
    register(server, "bereft", initial_workers=1)
    (parent,) = parents(server)

    parent.kill()
    psutil.wait_procs([parent], timeout=30)
    answer = server.predict("bereft")
    scaled = server.manage("PUT", "/models/bereft", min_worker=2, synchronous="true")

    assert answer.json["weights"] == WEIGHTS
    assert (scaled.status, scaled.said) == (200, "Worker scaled")
    assert len(loads(server)) == 2
    assert len(parents(server)) == 1


def test_a_model_without_workers_has_no_parent(server, until):
    """
    What it holds is worth more; scaled up again, it loads again.
    """
    register(server, "idle", initial_workers=1)

    server.manage("PUT", "/models/idle", min_worker=0, synchronous="true")

    until(lambda: not parents(server), "the parent is gone")
    server.manage("PUT", "/models/idle", min_worker=1, synchronous="true")
    assert server.predict("idle").json["weights"] == WEIGHTS
    server.manage("DELETE", "/models/idle")
    until(lambda: not parents(server), "the parent is gone")


def test_threads_are_refused_with_the_reason(server):
    """
    A fork has one thread: a handler that waits for another would wait for ever.
    """
    server.expect_error("load failed")

    answer = register(server, "threaded")

    assert answer.status == 500
    assert answer.json["message"] == "Failed to start workers"
    reason = answer.json["failure"]["lastLine"]
    assert reason == (
        "preload_model: the handler has started threads (reader), which a fork does not have; "
        "register the model without preload_model."
    )
    assert server.manage("GET", "/models/threaded").status == 404
    assert parents(server) == []
    ordinary = register(server, "threaded", preload_model="false", initial_workers=1)
    assert ordinary.status == 200


def test_a_model_that_cannot_be_loaded_says_why(server):
    """
    As it would without a parent, and once.
    """
    server.expect_error("load failed")

    answer = register(server, "broken")

    assert answer.status == 500
    assert answer.json["failure"]["lastLine"] == "OSError: no weights"
    assert len(loads(server)) == 1
    assert "OSError: no weights" in server.model_log("broken")


def test_workers_outlive_the_supervisor_and_its_parents(server, start_server, until):
    """
    They have the model; its successor loads it again when it wants another worker.
    """
    own = start_server("--preload-model", "true")
    own.register("lasting", "weights:handle")
    (before,) = own.workers("lasting")
    supervisor = own.supervisor

    supervisor.kill()
    psutil.wait_procs([supervisor], timeout=30)

    def goes_on():
        try:
            return own.predict("lasting").json["pid"] == before["pid"]
        except (OSError, KeyError, ValueError):
            return False

    until(goes_on, "the same worker answers again")
    assert len(loads(own)) == 1
    scaled = own.manage("PUT", "/models/lasting", min_worker=2, synchronous="true")
    assert scaled.status == 200, scaled.text
    assert len(loads(own)) == 2
    assert len(own.workers("lasting")) == 2
