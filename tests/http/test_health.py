"""`/ping`: contracts/torchserve.md 2.2, A1."""

from __future__ import annotations


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
