"""Faults of our own, and what all errors have in common: contracts/torchserve.md 1.4-1.6."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.errors import HandlerRefused


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


def _finished(job: Any) -> list[Any]:
    return [job.final(b"mine", status=413)]


def _refused(job: Any) -> list[Any]:
    return [job.error(HandlerRefused("too much", status=413))]


@pytest.mark.parametrize("work", [_finished, _refused])
def test_413_is_for_bodies_alone(frontend, supervisor, work):
    """
    From anywhere else it becomes 507 (1.6).
    """
    supervisor.models["m"] = work

    answer = frontend.request("inference", "POST", "/predictions/m", b"x")

    assert answer.status == 507


def test_error_document_is_formatted_as_the_peers(frontend, supervisor):
    """
    Two blanks, no escapes but those of JSON, one newline at the end (1.4, 1.5).
    """
    supervisor.models["m"] = lambda job: [job.error(HandlerRefused("<é> & 'ü'", status=422))]

    answer = frontend.request("inference", "POST", "/predictions/m", b"x")

    assert (
        answer.body
        == (
            '{\n  "code": 422,\n  "type": "InternalServerException",\n'
            '  "message": "<é> & \'ü\'"\n}\n'
        ).encode()
    )
    assert answer.header("content-type") == "application/json"


def test_error_without_a_message_has_no_message(frontend, supervisor):
    """
    Fields without a value are left out (1.4, 1.5).
    """
    supervisor.models["m"] = lambda job: [job.error(HandlerRefused("", status=422))]

    answer = frontend.request("inference", "POST", "/predictions/m", b"x")

    assert answer.json == {"code": 422, "type": "InternalServerException"}
