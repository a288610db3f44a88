"""Faults of our own: contracts/torchserve.md 1.5."""

from __future__ import annotations


def test_bug_of_ours_is_a_500_that_gives_nothing_away(frontend, supervisor, capfd):
    """
    The traceback is for the log, under the request id (issue 2, point 10).
    """
    supervisor.verbs["list"] = lambda arguments: {"nonsense": True}

    answer = frontend.request("management", "GET", "/models")

    assert (answer.status, answer.json["type"]) == (500, "InternalServerException")
    assert b"Traceback" not in answer.body
    assert b"nonsense" not in answer.body
    assert b"KeyError" not in answer.body
    logged = capfd.readouterr().err
    assert answer.header("x-request-id") in logged
    assert "KeyError" in logged
