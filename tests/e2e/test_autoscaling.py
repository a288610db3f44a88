"""Workers that come and go with the load: real processes, real requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).parents[2] / "benchmarks" / "shaped_load.py"


class Load:
    """The open-loop driver, in a process of its own."""

    def __init__(self, server, rates: str, model: str = "m", seed: int = 1) -> None:
        url = f"{server.addresses['inference']}/predictions/{model}"
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER), url, "--rates", rates, "--seed", str(seed)],
            stdout=subprocess.PIPE,
        )

    def seconds(self):
        output, _ = self._process.communicate(timeout=240)
        return json.loads(output)["seconds"]


def statuses(seconds):
    return {status for second in seconds for status in second["statuses"]}


def p99_s(seconds):
    latencies = sorted(latency for second in seconds for latency in second["latencies_s"])
    return latencies[int(len(latencies) * 0.99)]


def scale(server, low, high, model="m"):
    answer = server.manage("PUT", f"/models/{model}", min_worker=low, max_worker=high)
    assert answer.status == 202, answer.text


def ready(server, model="m"):
    return [worker for worker in server.workers(model) if worker["status"] == "READY"]


@pytest.fixture(scope="module")
def server_flags():
    return "--max-idle-s", "2", "--job-queue-size", "1000"


@pytest.fixture
def scaling_server(server):
    server.register("m", "works:handle")
    return server


def test_a_model_sleeps_until_it_is_asked_and_sleeps_again(scaling_server, until):
    """
    No process while nobody wants it, and the first request is answered all the same.
    """
    server = scaling_server
    scale(server, 0, 2)
    until(lambda: not server.workers("m"), "it sleeps")

    answer = server.predict("m", "x")

    assert (answer.status, answer.text) == (200, "done")
    assert server.ask("inference", "GET", "/health/ready/m").status == 200
    until(lambda: not server.workers("m"), "it sleeps again")
    assert server.ask("inference", "GET", "/health/ready/m").status == 200
    change = server.describe("m")["scaling"]["lastChange"]
    assert (change["from"], change["to"]) == (1, 0)
    assert server.predict("m", "x").status == 200


def test_a_step_brings_workers_and_takes_them_away_and_nobody_is_refused(scaling_server, until):
    """
    Twice what one worker can do: more come, the wait is short again, they go when it is over.
    """
    server = scaling_server
    scale(server, 1, 4)

    load = Load(server, "3*3,20*9")
    until(lambda: len(ready(server)) >= 3, "the load has its workers")
    seconds = load.seconds()

    assert statuses(seconds) == {"200"}
    # Far from the target of 0.25 s, for slow machines; without more workers it would be ten.
    assert p99_s(seconds[9:]) < 2.0
    scaling = server.describe("m")["scaling"]
    assert scaling["wantedWorkers"] <= 4
    until(lambda: len(server.workers("m")) == 1, "it is the minimum again")
    notes = server.logged("model autoscales")
    assert max(note["wanted"] for note in notes) <= 4
    assert {"why", "requests_per_s", "wait_p99_s", "queued", "batch_fill"} <= set(notes[0])


def test_a_spike_is_survived_and_forgotten(scaling_server, until):
    server = scaling_server
    scale(server, 1, 4)

    seconds = Load(server, "2*2,50*2,2*5").seconds()

    assert statuses(seconds) == {"200"}
    assert p99_s(seconds[-3:]) < 5.0
    until(lambda: len(server.workers("m")) == 1, "it is the minimum again")


def test_killed_workers_are_replaced_and_a_new_supervisor_keeps_those_that_load_brought(
    start_server, until
):
    """
    SIGKILL, of a worker and of the supervisor, while requests come: nobody notices.
    """
    server = start_server("--job-queue-size", "1000")
    server.register("m", "works:handle")
    scale(server, 1, 3)
    load = Load(server, "20*10")
    until(lambda: len(ready(server)) == 3, "the load has its workers")
    victim = ready(server)[0]["pid"]

    os.kill(victim, signal.SIGKILL)
    until(lambda: len(ready(server)) == 3 and victim not in pids(server), "it is replaced")
    before, supervisor = pids(server), server.supervisor.pid
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: is_another(server, supervisor), "another supervisor is there")
    until(lambda: len(ready(server)) == 3, "its workers are back")

    assert pids(server) == before
    assert server.describe("m")["maxWorkers"] == 3
    assert statuses(load.seconds()) == {"200"}


def pids(server):
    return {worker["pid"] for worker in server.workers("m")}


def is_another(server, pid):
    try:
        return server.supervisor.pid != pid and bool(server.workers("m"))
    except AssertionError:
        return False
