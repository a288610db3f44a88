"""Promise 8: a model that cannot run fails alone; one that grows or ages is replaced."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from fates import ask, ask_later, deaths, noted, packer, pids
from live_crowds import Bystander

pytestmark = pytest.mark.slow


@pytest.fixture
def register(server, model, model_store: Path, tmp_path: Path):
    """The test's model with what its model-config.yaml says, and its workers."""
    make = packer(model_store, tmp_path)

    def put(function: str = "handle", workers: int = 1, *, waits: bool = True, **config):
        url = make(model, function, **config)
        query = {"url": url, "initial_workers": workers, "synchronous": str(waits).lower()}
        answer = server.manage("POST", "/models", **query)
        assert answer.status == (200 if waits else 202), answer.text

    return put


# -- that cannot run ------------------------------------------------------------------------


def test_a_model_that_keeps_dying_fails_alone(server, model, until, register):
    """
    It loads and dies, loads and dies: after its time it has failed and says
    why, its queue is answered, and a neighbour has noticed nothing.
    """
    server.register("echo", "echo:handle")
    server.expect_error("worker given up")
    with Bystander(server, "echo") as bystander:
        register("brief", waits=False, maxRetryTimeoutInSec=2)
        until(lambda: deaths(server, model) > 1, "it dies")
        waits = ask_later(server, model, "nap 60")
        until(lambda: server.describe(model)["status"] == "Failed", "it has failed")
        answered_after = time.monotonic()
        assert waits.answer().status in (500, 503)
        assert time.monotonic() - answered_after < 1.0

    described = server.describe(model)
    assert "exit 7" in described["failure"]["message"]
    assert described["deaths"]["last"]["exit"] == "exit 7"
    assert described["workers"] == []
    started = time.monotonic()
    assert ask(server, model, "echo").status == 503
    assert time.monotonic() - started < 1.0
    bystander.judge()
    (line,) = server.logged("model cannot run", model=model)
    assert "exit 7" in line["reason"]
    assert 3 <= described["deaths"]["count"] <= 8, "each quick death waits longer"


def test_a_failed_model_that_is_looked_after_tries_again(server, model, until, register):
    """
    Scaling is how an operator says so; scaled to nothing it has not failed.
    """
    server.expect_error("worker given up")
    register("brief", waits=False, maxRetryTimeoutInSec=0)
    until(lambda: server.describe(model)["status"] == "Failed", "it has failed")
    before = deaths(server, model)

    server.manage("PUT", f"/models/{model}?min_worker=1")
    until(lambda: deaths(server, model) > before, "it has been tried")
    until(lambda: server.describe(model)["status"] == "Failed", "it has failed again")
    server.manage("PUT", f"/models/{model}?min_worker=0&max_worker=0&synchronous=true")

    described = server.describe(model)
    assert described["status"] == "Healthy"
    assert "failure" not in described


# -- that is replaced -------------------------------------------------------------------------


class Askers:
    """Clients that ask one after the other until told to stop; every answer must be right."""

    def __init__(self, server, model, count=4):
        self._server, self._model = server, model
        self._is_over = threading.Event()
        self.wrong: list[str] = []
        self.answered = 0
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(count)]

    def __enter__(self):
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        for each in self._threads:
            each.join()

    def _run(self, number):
        asked = 0
        while not self._is_over.is_set():
            asked += 1
            text = f"nap 0.002 {number}.{asked}"
            answer = ask(self._server, self._model, text)
            if (answer.status, answer.text) != (200, text):
                self.wrong.append(answer.text)
            self.answered += 1


def recycled(server, model):
    return server.describe(model).get("recycledWorkers", 0)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"max_worker_jobs": 50}, "max_worker_jobs"),
        ({"max_worker_age_s": 1}, "max_worker_age_s"),
        ({"max_worker_memory_mb": 1}, "max_worker_memory_mb"),
    ],
)
def test_workers_are_replaced_under_load_without_loss(server, model, until, register, config, why):
    """
    The successor is there before the old one leaves: nobody waits, nobody is refused.
    """
    register("handle", workers=2, **config)
    first = set(pids(server, model))
    with Askers(server, model) as askers:
        until(lambda: recycled(server, model) >= 3, "three have been replaced")
        until(lambda: first.isdisjoint(pids(server, model)), "none is left of the first")

    assert askers.wrong == []
    assert askers.answered > 20
    assert deaths(server, model) == 0
    begun = noted(server, model)
    assert len(begun) == len(set(begun)) == askers.answered
    assert server.logged("worker recycles", model=model)[0]["why"].startswith(why)
    lines = server.logged("worker left", model=model)
    assert {line["exit"] for line in lines} == {"exit 0"}


def test_beyond_its_limit_a_worker_is_killed_and_the_log_says_why(server, model, until, register):
    """
    Who comes after it is answered.  The request itself is answered, too, or was tried again.
    """
    server.expect_error("worker is too large and is killed")
    register("handle", worker_memory_limit_mb=300)
    assert ask(server, model, "grow 10").status == 200

    grown = ask(server, model, "grow 400")
    until(lambda: deaths(server, model) >= 1, "it is killed")

    assert grown.status in (200, 500)
    last = server.describe(model)["deaths"]["last"]
    assert last["likely"] == "its memory passed worker_memory_limit_mb"
    assert ask(server, model, "echo after").text == "echo after"
    (line, *_) = server.logged("worker is too large and is killed", model=model)
    assert line["memory_mib"] >= 300


def test_a_request_that_makes_each_worker_too_large_is_told_so(server, model, register):
    """
    The second worker has died of it before it is given up.
    """
    server.expect_error("worker is too large and is killed")
    register("handle", worker_memory_limit_mb=300)

    grown = ask(server, model, "grow 400 60")

    assert grown.status == 500
    assert "worker_memory_limit_mb" in grown.text
    assert deaths(server, model) == 2
    assert server.logged("request kills workers", model=model)
    assert ask(server, model, "echo after").text == "echo after"
