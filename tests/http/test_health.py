"""`/ping`: contracts/torchserve.md 2.2, A1."""

from __future__ import annotations

import pytest


def test_ping_says_healthy_byte_for_byte(frontend, supervisor):
    """
    A1, the whole answer.
    """
    supervisor.verbs["health"] = lambda arguments: {"is_healthy": True, "models": {}}

    answer = frontend.request("inference", "GET", "/ping")

    assert answer.status_line == "HTTP/1.1 200 OK"
    assert [pair for pair in answer.headers if pair[0] != "x-request-id"] == [
        ("content-type", "application/json"),
        ("Pragma", "no-cache"),
        ("Cache-Control", "no-cache; no-store, must-revalidate, private"),
        ("Expires", "Thu, 01 Jan 1970 00:00:00 UTC"),
        ("content-length", "26"),
        ("connection", "keep-alive"),
    ]
    assert answer.names[1] == "x-request-id"
    assert answer.body == b'{\n  "status": "Healthy"\n}\n'


def test_ping_unhealthy_is_a_500_with_a_status(frontend, supervisor):
    """
    Not the error shape (2.2).
    """
    supervisor.verbs["health"] = lambda arguments: {"is_healthy": False, "models": {"m": False}}

    answer = frontend.request("inference", "GET", "/ping")

    assert (answer.status, answer.json) == (500, {"status": "Unhealthy"})


@pytest.mark.parametrize("listener", ["inference", "management"])
def test_live_is_the_process_and_ready_is_the_server(frontend, supervisor, listener):
    """
    A probe that restarts what is not live must not be told of a supervisor's troubles.
    """
    answers = {}
    for is_ready in (True, False):
        supervisor.verbs["ready"] = lambda arguments, is_ready=is_ready: {"is_ready": is_ready}
        for path in ("/health/live", "/health/ready"):
            answer = frontend.request(listener, "GET", path)
            answers[path, is_ready] = answer.status, answer.json

    assert answers == {
        ("/health/live", True): (200, {"live": True}),
        ("/health/ready", True): (200, {"ready": True}),
        ("/health/live", False): (200, {"live": True}),
        ("/health/ready", False): (503, {"ready": False}),
    }


@pytest.mark.parametrize(("path", "version"), [("/m", None), ("/m/2.0", "2.0")])
def test_a_model_is_ready_by_itself(frontend, supervisor, path, version):
    """
    The default version, or the one that is named.
    """
    supervisor.verbs["ready"] = lambda arguments: {"is_ready": arguments["model"] == "m"}

    answer = frontend.request("inference", "GET", f"/health/ready{path}")

    assert (answer.status, answer.json) == (200, {"ready": True})
    assert supervisor.calls[-1][1] == {"model": "m", "version": version}
