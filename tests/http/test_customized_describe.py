"""`customized=true`: a handler describes itself (contracts/torchserve.md 3.6, 1.6)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stoker.errors import (
    DeadlineExceeded,
    HandlerFailed,
    ModelNotFound,
    NoWorker,
    QueueFull,
    WorkerDied,
)
from stoker.wire.frames import JobFlag

NO_DESCRIBER = (
    'Model "m" has no worker to serve describe request. '
    "Please use scale workers API to add workers."
)


@pytest.fixture
def described(frontend, supervisor, record):
    """Ask for a description of `m`, whose handler answers with `said`."""

    def ask(said: Any, target: str = "/models/m?customized=true", **about: Any):
        def model(job):
            if isinstance(said, Exception):
                raise said
            return [job.final(said, **about)]

        supervisor.models["m"] = model
        supervisor.verbs["describe"] = lambda arguments: {"versions": [record()]}
        return frontend.request("management", "GET", target, b"", (("describe", "client"),))

    return ask


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b'{"a": {"b": [1]}}', {"a": {"b": [1]}}),
        (b"{}", {}),
        (b'["no", "object"]', {}),
        (b"no json", {}),
        (b"[" * 100_000, {}),
        (b"", {}),
    ],
)
def test_what_the_handler_says_becomes_an_object(described, said, shown):
    """
    The last field; anything that is no JSON object counts as an empty one.
    """
    answer = described(said)

    (record,) = answer.json
    assert (answer.status, record["customizedMetadata"]) == (200, shown)
    assert [*record][-1] == "customizedMetadata"
    assert answer.status_line == "HTTP/1.1 200 OK"
    assert answer.header("content-type") == "application/json"


def test_handler_that_says_nothing_adds_no_field(described):
    """
    None is left out.
    """
    answer = described(b"null")

    assert "customizedMetadata" not in answer.json[0]


@pytest.mark.parametrize(("target", "version"), [("/models/m", None), ("/models/m/2.0", "2.0")])
def test_question_is_a_job_alone_with_a_header_and_no_input(described, supervisor, target, version):
    """
    Handlers look for `describe: True`; the server's word is stronger than the client's.
    """
    described(b"{}", f"{target}?customized=TRUE")

    (job,) = supervisor.jobs
    assert (job.job.model, job.job.version) == ("m", version)
    assert job.job.flags == JobFlag.ALONE
    assert job.headers["describe"] == "True"
    assert job.payload.parameters == []


@pytest.mark.parametrize(
    "target", ["/models/m", "/models/m?customized=false", "/models/m/all?customized=true"]
)
def test_handler_is_asked_only_if_the_request_says_so(described, supervisor, target):
    """
    `all` never asks.
    """
    answer = described(b"{}", target)

    assert "customizedMetadata" not in answer.json[0]
    assert supervisor.jobs == []


def test_handlers_status_and_headers_are_the_answers(described):
    """
    As for a prediction.
    """
    answer = described(
        b"{}",
        status=203,
        reason="Because",
        content_type="application/vnd.model+json",
        headers=(("X-A", "1"),),
    )

    assert answer.status_line == "HTTP/1.1 203 Because"
    assert answer.names.count("content-type") == 1
    assert answer.header("content-type") == "application/vnd.model+json"
    assert answer.header("X-A") == "1"
    assert answer.json[0]["customizedMetadata"] == {}


def test_pieces_before_the_last_word_are_ignored(frontend, supervisor, record):
    """
    A streaming handler's final result is what it says of itself.
    """
    supervisor.models["m"] = lambda job: [job.chunk(b"{"), job.chunk(b"x"), job.final(b'{"a": 1}')]
    supervisor.verbs["describe"] = lambda arguments: {"versions": [record()]}

    answer = frontend.request("management", "GET", "/models/m?customized=true")

    assert answer.json[0]["customizedMetadata"] == {"a": 1}


@pytest.mark.parametrize(
    ("error", "status", "kind", "message"),
    [
        (NoWorker(model="m"), 503, "ServiceUnavailableException", NO_DESCRIBER),
        (
            WorkerDied(model="m", reason="timeout"),
            500,
            "InternalServerException",
            "Failed to get customized model matadata.",
        ),
        (WorkerDied(model="m", reason="exit"), 500, "InternalServerException", "Worker died."),
        (HandlerFailed(), 503, "InternalServerException", "Prediction failed"),
        (DeadlineExceeded("Too late."), 408, "RequestTimeoutException", "Too late."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_question_that_fails_has_its_exact_shape(described, error, status, kind, message):
    """
    The rows of 1.6 that are about describing, and those of handlers.
    """
    answer = described(error)

    assert answer.json == {"code": status, "type": kind, "message": message}
    assert answer.status == status


def test_full_queue_has_the_text_of_a_missing_worker(frontend, supervisor, record):
    """
    As for a prediction (1.6).
    """

    def model(job):
        raise QueueFull(model="full")

    supervisor.models["full"] = model
    supervisor.verbs["describe"] = lambda arguments: {"versions": [record()]}

    answer = frontend.request("management", "GET", "/models/full?customized=true")

    assert answer.status == 503
    assert answer.json["message"] == NO_DESCRIBER.replace('"m"', '"full"')
    assert answer.header("retry-after") == "1"


def test_unknown_model_is_not_asked(manage, supervisor):
    """
    The registry is asked first.
    """
    error = ModelNotFound(model="m")

    answer = manage("GET", "/models/m?customized=true", "describe", error)

    assert answer.status == 404
    assert supervisor.jobs == []


def test_client_that_leaves_takes_its_question_back(frontend, supervisor, record, until):
    """
    As for any job.
    """
    supervisor.models["m"] = lambda job: []
    supervisor.verbs["describe"] = lambda arguments: {"versions": [record()]}
    client = frontend.client("management")
    client.send(b"GET /models/m?customized=true HTTP/1.1\r\nHost: test\r\n\r\n")
    until(lambda: supervisor.jobs, "the question is there")

    client.close()

    until(lambda: supervisor.cancelled, "the question was taken back")
    assert supervisor.cancelled == [supervisor.jobs[0].job.job_id]


def test_metadata_is_told_as_it_is(described):
    """
    No second round of escaping (1.4).
    """
    answer = described(json.dumps({"é": "<&>"}).encode())

    assert '"é": "<&>"'.encode() in answer.body
