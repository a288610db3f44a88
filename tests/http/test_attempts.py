"""A request that was tried again: its answer says so, and an ordinary one says nothing."""

from __future__ import annotations

import pytest

from stoker.errors import HandlerFailed, WorkerDied
from stoker.wire.payloads import ATTEMPTS_HEADER

#: The short way of a prediction, and the one through the framework.
WAYS = pytest.mark.parametrize("path", ["/predictions/m", "/predictions/%6d"])


@WAYS
def test_an_answer_of_a_later_attempt_says_which(frontend, supervisor, path):
    """
    Somebody who looks for the cause of a slow request finds it in the answer.
    """

    def die_twice(job):
        supervisor.retry(job, 1)
        supervisor.retry(job, 2)
        return [job.final(b"at last")]

    supervisor.models["m"] = die_twice

    answer = frontend.request("inference", "POST", path, b"x")

    assert (answer.status, answer.body) == (200, b"at last")
    assert answer.header(ATTEMPTS_HEADER) == "3"


@WAYS
def test_a_first_attempt_is_not_mentioned(frontend, supervisor, path):
    """
    The usual answer is the contract's, byte for byte.
    """
    supervisor.models["m"] = lambda job: [job.final(b"at once")]

    answer = frontend.request("inference", "POST", path, b"x")

    assert answer.header(ATTEMPTS_HEADER) is None


@WAYS
def test_what_a_handler_refuses_at_a_later_attempt_says_which(frontend, supervisor, path):
    def die_then_fail(job):
        supervisor.retry(job, 1)
        return [job.error(HandlerFailed("no"))]

    supervisor.models["m"] = die_then_fail

    answer = frontend.request("inference", "POST", path, b"x")

    assert answer.json["message"] == "Prediction failed"
    assert answer.header(ATTEMPTS_HEADER) == "2"


@WAYS
def test_a_request_that_killed_its_workers_is_told_how_and_how_often(frontend, supervisor, path):
    """
    The contract's words, and beside them what an operator needs.
    """

    def die(job):
        raise WorkerDied(
            "The worker died with the request in hand (SIGSEGV: crash in native code).",
            model="m",
            exit="SIGSEGV",
            likely="crash in native code",
            attempts=2,
        )

    supervisor.models["m"] = die

    answer = frontend.request("inference", "POST", path, b"x")

    assert (answer.status, answer.json["message"]) == (500, "Worker died.")
    assert answer.json["failure"] == {
        "message": "The worker died with the request in hand (SIGSEGV: crash in native code).",
        "exit": "SIGSEGV",
        "likely": "crash in native code",
        "attempts": 2,
    }
    assert answer.header(ATTEMPTS_HEADER) == "2"


def test_a_stream_of_a_later_attempt_says_which(frontend, supervisor):
    """
    Its head leaves with the first piece.
    """

    def stream(job):
        supervisor.retry(job, 1)
        return [job.chunk(b"one"), job.final(b"two")]

    supervisor.models["m"] = stream
    client = frontend.client()
    client.send(b"POST /predictions/m HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")

    _, headers = client.take_head()

    assert dict(headers)[ATTEMPTS_HEADER] == "2"
    assert list(client.read_chunks()) == [b"one", b"two"]
