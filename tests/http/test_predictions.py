"""Predictions over HTTP: contracts/torchserve.md 2.1-2.7, A6-A8."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from stoker.errors import (
    DeadlineExceeded,
    HandlerFailed,
    HandlerOutOfMemory,
    HandlerRefused,
    NoWorker,
    QueueFull,
    VersionNotFound,
    WorkerDied,
    WorkerOutOfMemory,
)
from stoker.wire.frames import JobFlag

JSON = ("Content-Type", "application/json")
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_answer_carries_the_handlers_body_and_no_invented_content_type(frontend, echo):
    """
    A few clients sniff: only what the handler set may be there (A6).
    """
    answer = frontend.request("inference", "POST", f"/predictions/{echo}", b"hello")

    assert answer.status_line == "HTTP/1.1 200 "
    assert answer.body == b"hello"
    assert answer.names == [
        "x-request-id",
        "Pragma",
        "Cache-Control",
        "Expires",
        "content-length",
        "connection",
    ]
    assert answer.header("connection") == "keep-alive"


def test_handler_sets_status_reason_type_and_headers_as_spelled(frontend, supervisor):
    """
    Clients read the handler's headers with the handler's spelling.
    """
    supervisor.models["m"] = lambda job: [
        job.final(
            b"x",
            status=201,
            reason="Made",
            content_type="image/png",
            headers=(("X-Custom-Header", "7"), ("Pragma", "mine"), ("Content-Length", "99")),
        )
    ]

    answer = frontend.request("inference", "POST", "/predictions/m")

    assert answer.status_line == "HTTP/1.1 201 Made"
    assert answer.headers[0] == ("content-type", "image/png")
    assert ("X-Custom-Header", "7") in answer.headers
    assert answer.header("Pragma") == "no-cache"
    assert answer.names.count("Pragma") == 1
    assert answer.body == b"x"


def test_handlers_error_status_closes_with_its_own_body(frontend, supervisor):
    """
    A handler's 418 is the handler's: no error shape around it (A8).
    """
    supervisor.models["m"] = lambda job: [job.final(b"teapot", status=418)]

    answer = frontend.request("inference", "POST", "/predictions/m")

    assert (answer.status, answer.body) == (418, b"teapot")
    assert answer.is_closed


def test_handler_cannot_break_out_of_a_header(frontend, supervisor):
    """
    A line break in a header value would let a handler's data forge an answer.
    """
    supervisor.models["m"] = lambda job: [
        job.final(b"x", headers=(("X-A", "1\r\nX-Evil: 2"), ("bad name", "3")))
    ]

    answer = frontend.request("inference", "POST", "/predictions/m")

    assert answer.header("X-A") == "1  X-Evil: 2"
    assert answer.header("X-Evil") is None
    assert "bad name" not in answer.names


@pytest.mark.parametrize("status", [99, 100, 999])
def test_impossible_status_of_a_handler_is_a_bad_result(frontend, supervisor, status):
    """
    A status that would break the protocol fails its request, not the connection's parser.
    """
    supervisor.models["m"] = lambda job: [job.final(b"x", status=status)]

    answer = frontend.request("inference", "POST", "/predictions/m")

    assert (answer.status, answer.json["type"]) == (503, "InternalServerException")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_any_method_predicts(frontend, echo, method):
    """
    The peer does not check the method on inference routes (1.2).
    """
    answer = frontend.request("inference", method, f"/predictions/{echo}", b"b")

    assert (answer.status, answer.body) == (200, b"b")


def test_version_and_rest_of_the_path_reach_the_handler(frontend, supervisor, echo):
    """
    Text after the version is the header url_path (2.1, 2.5).
    """
    frontend.request("inference", "POST", f"/predictions/{echo}/2.0/a/b%20c/?x=1", b"b")

    job = supervisor.jobs[-1]
    assert (job.job.model, job.job.version) == ("echo", "2.0")
    assert job.headers["url_path"] == "a/b c"
    assert job.headers["explain"] == "False"


def test_trailing_slash_is_dropped(frontend, supervisor, echo):
    """
    `/predictions/m/` is `/predictions/m` (1.2).
    """
    answer = frontend.request("inference", "POST", f"/predictions/{echo}/", b"b")

    assert answer.status == 200
    assert supervisor.jobs[-1].job.version is None


def test_handler_sees_headers_as_the_client_spelled_them(frontend, supervisor, echo):
    """
    Handlers look up `ts_request_sequence_id` and `Content-Type` literally (2.5).
    """
    frontend.request(
        "inference",
        "POST",
        f"/predictions/{echo}",
        b"b",
        (("ts_request_sequence_id", "7"), ("X-Twice", "1"), ("X-Twice", "2"), ("explain", "True")),
    )

    headers = supervisor.jobs[-1].headers
    assert headers["ts_request_sequence_id"] == "7"
    assert headers["X-Twice"] == "2"
    assert headers["Host"] == "test"
    assert headers["explain"] == "False"
    assert headers["url_path"] == ""


@pytest.mark.parametrize(
    ("offered", "is_kept"),
    [("my-id/7", True), ("x" * 128, True), ("x" * 129, False), ("two words", False)],
)
def test_request_id_of_the_client_is_kept_when_it_is_sane(
    frontend, supervisor, echo, offered, is_kept
):
    """
    One id in the answer, the handler and the logs (contracts/README, x-request-id).
    """
    answer = frontend.request(
        "inference", "POST", f"/predictions/{echo}", b"b", (("X-Request-Id", offered),)
    )

    said = answer.header("x-request-id")
    assert said == supervisor.jobs[-1].payload.request_id
    assert (said == offered) is is_kept
    assert is_kept or UUID4.fullmatch(said)


def test_request_ids_are_unique(frontend, echo):
    """
    Two requests with one id cannot be told apart in a log.
    """
    client = frontend.client()

    ids = {client.request("POST", f"/predictions/{echo}").header("x-request-id") for _ in range(50)}

    assert len(ids) == 50


def test_deadline_is_the_setting_or_less_if_the_client_says_so(frontend, supervisor, echo):
    """
    Work for clients who gave up costs GPU time.
    """
    deadlines = []
    for headers in (
        (),
        (("x-request-timeout-ms", "1500"),),
        (("x-request-timeout-ms", "9999999"),),
    ):
        before = time.monotonic()
        frontend.request("inference", "POST", f"/predictions/{echo}", b"", headers)
        deadlines.append(supervisor.jobs[-1].job.deadline - before)

    assert 300 <= deadlines[0] < 301
    assert 1.49 <= deadlines[1] < 2.5  # the loop's clock ticks in milliseconds
    assert 299.99 <= deadlines[2] < 301


def test_a_clients_deadline_counts_from_the_arrival_of_its_head(frontend, supervisor, echo, until):
    """
    However long its body takes; and it holds in a worker's hand as well.
    """
    client = frontend.client()
    before = time.monotonic()
    client.send(
        b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n"
        b"x-request-timeout-ms: 60000\r\n\r\n"
    )
    until(lambda: time.monotonic() - before > 0.3, "the body takes its time")
    client.send(b"x")

    assert client.read().body == b"x"
    job = supervisor.jobs[-1].job
    assert job.deadline - before < 60.2
    assert job.flags & JobFlag.ENDS_IN_HAND


@pytest.mark.parametrize("said", [(), (("x-request-timeout-ms", "soon"),)])
def test_without_a_deadline_of_its_own_a_job_may_take_long_in_a_hand(
    frontend, supervisor, echo, said
):
    """
    request_deadline_s is for waiting; what cannot be read says nothing.
    """
    frontend.request("inference", "POST", f"/predictions/{echo}", b"", said)

    assert not supervisor.jobs[-1].job.flags & JobFlag.ENDS_IN_HAND


BAD_WORKER = (
    " has no worker to serve inference request. Please use scale workers API to add workers. If "
    "this is a sequence inference, please check if it is closed, or expired; or exceeds "
    "maxSequenceJobQueueSize"
)
ERRORS = [
    (NoWorker(model="m"), "", 503, "ServiceUnavailableException", f'Model "m"{BAD_WORKER}'),
    (
        NoWorker(model="m", version="1.0"),
        "/1.0",
        503,
        "ServiceUnavailableException",
        f'Model "m" Version 1.0"{BAD_WORKER}',
    ),
    (QueueFull(model="m"), "", 503, "ServiceUnavailableException", f'Model "m"{BAD_WORKER}'),
    (
        VersionNotFound(model="m", version="9"),
        "/9",
        404,
        "ModelVersionNotFoundException",
        "Model version: 9 does not exist for model: m",
    ),
    (HandlerFailed(), "", 503, "InternalServerException", "Prediction failed"),
    (HandlerOutOfMemory(), "", 507, "InternalServerException", "Out of resources"),
    (
        HandlerRefused("field x missing", status=422),
        "",
        422,
        "InternalServerException",
        "field x missing",
    ),
    (HandlerRefused("big", status=413), "", 507, "InternalServerException", "big"),
    (WorkerDied(model="m"), "", 500, "InternalServerException", "Worker died."),
    (WorkerOutOfMemory(model="m"), "", 507, "InternalServerException", "Worker died."),
    (DeadlineExceeded("Too late.", model="m"), "", 408, "RequestTimeoutException", "Too late."),
]


@pytest.mark.parametrize(
    ("error", "path", "status", "kind", "message"), ERRORS, ids=lambda value: str(value)[:24]
)
def test_error_has_its_exact_shape(
    frontend, supervisor, error: Any, path: str, status: int, kind: str, message: str
):
    """
    Clients match on status, type and text (1.6, A3, A7).
    """
    supervisor.models["m"] = lambda job: [job.error(error)]

    answer = frontend.request("inference", "POST", f"/predictions/m{path}")

    quoted = message.replace('"', '\\"')
    expected = f'{{\n  "code": {status},\n  "type": "{kind}",\n  "message": "{quoted}"\n}}\n'
    assert answer.body.decode() == expected
    assert answer.status == status
    assert answer.header("content-type") == "application/json"
    # Want of room is not about this request: the client may ask again right here.
    assert answer.is_closed != isinstance(error, QueueFull)


def test_refused_job_is_answered_like_a_failed_one(frontend):
    """
    An unknown model is noticed by the supervisor, not by a worker.
    """
    answer = frontend.request("inference", "POST", "/predictions/nobody", b"b")

    assert answer.status_line == "HTTP/1.1 404 Not Found"
    assert answer.json == {
        "code": 404,
        "type": "ModelNotFoundException",
        "message": "Model not found: nobody",
    }


def test_full_queue_says_when_to_try_again(frontend, supervisor):
    """
    A client that knows when to come back does not hammer.
    """

    def refuse(job):
        raise QueueFull(model="m")

    supervisor.models["m"] = refuse

    answer = frontend.request("inference", "POST", "/predictions/m")

    assert (answer.status, answer.header("retry-after")) == (503, "1")


def test_queue_full_status_is_a_setting(start_frontend, supervisor):
    """
    Load balancers treat 429 better than 503 (contracts/README, queue full).
    """
    supervisor.models["m"] = lambda job: [job.error(QueueFull(model="m"))]

    answer = start_frontend(queue_full_status=429).request("inference", "POST", "/predictions/m")

    assert (answer.status, answer.json["code"]) == (429, 429)


def test_streamed_answer_is_one_chunk_per_piece(frontend, supervisor):
    """
    The first piece decides status and headers, the final return is the last chunk (2.7).
    """
    supervisor.models["m"] = lambda job: [
        job.chunk(b"one", status=201, headers=(("ts_stream_next", "true"),)),
        job.chunk(b"two", status=500),
        job.final(b"three", headers=(("ts_stream_next", "false"),)),
    ]
    client = frontend.client()

    answer = client.request("POST", "/predictions/m")

    assert (answer.status, answer.body) == (201, b"onetwothree")
    assert answer.header("transfer-encoding") == "chunked"
    assert answer.header("content-length") is None
    assert answer.header("ts_stream_next") == "true"
    assert client.request("POST", "/predictions/nobody").status == 404  # still in step


def test_streamed_pieces_arrive_as_they_are_made(frontend, supervisor, until):
    """
    A stream that is delivered at its end is no stream.
    """
    supervisor.models["m"] = lambda job: [job.chunk(b"one")]
    client = frontend.client()
    client.send(b"POST /predictions/m HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
    client.read_until(b"\r\n\r\n")

    first = client.read_chunk()
    job = supervisor.jobs[-1]
    supervisor.send_later(job.chunk(b"two"))
    second = client.read_chunk()
    supervisor.send_later(job.final(b"end"))

    assert (first, second, client.read_chunk(), client.read_chunk()) == (
        b"one",
        b"two",
        b"end",
        b"",
    )


def test_error_after_the_first_piece_ends_the_connection_without_an_end(frontend, supervisor):
    """
    The client must be able to tell a broken stream from a whole one (2.7).
    """
    supervisor.models["m"] = lambda job: [job.chunk(b"one"), job.error(WorkerDied(model="m"))]
    client = frontend.client()
    client.send(b"POST /predictions/m HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
    client.read_until(b"\r\n\r\n")

    assert client.read_chunk() == b"one"
    with pytest.raises(EOFError):
        client.read_chunk()


def test_client_that_leaves_cancels_its_job(frontend, supervisor, until):
    """
    Nobody wants the answer any more: free the worker (section 12, 5).
    """
    supervisor.models["m"] = lambda job: []
    client = frontend.client()
    client.send(b"POST /predictions/m HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
    until(lambda: bool(supervisor.jobs), "the job is with the supervisor")

    client.close()

    until(lambda: supervisor.cancelled == [supervisor.jobs[-1].job.job_id], "it is cancelled")
    until(lambda: not frontend.server.state.tasks, "nobody waits for it any more")


def test_client_that_leaves_a_stream_cancels_it(frontend, supervisor, until):
    """
    As above; streams are where it costs most.
    """
    supervisor.models["m"] = lambda job: [job.chunk(b"one")]
    client = frontend.client()
    client.send(b"POST /predictions/m HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
    client.read_until(b"one\r\n")

    client.close()

    until(lambda: supervisor.cancelled == [supervisor.jobs[-1].job.job_id], "it is cancelled")
    until(lambda: not frontend.server.state.tasks, "nobody waits for it any more")


def test_pipelined_requests_are_answered_in_order(frontend, echo):
    """
    HTTP/1.1 allows it, so answers must not overtake each other.
    """
    client = frontend.client()

    for body in (b"a", b"b", b"c"):
        client.send(
            b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n" + body
        )

    assert [client.read().body for _ in range(3)] == [b"a", b"b", b"c"]


def test_head_gets_no_body(frontend, echo):
    """
    A body after HEAD would be read as the next answer.
    """
    client = frontend.client()

    first = client.request("HEAD", f"/predictions/{echo}")
    second = client.request("POST", f"/predictions/{echo}", b"b")

    assert (first.status, first.body) == (200, b"")
    assert second.body == b"b"


def test_client_that_asks_to_close_is_closed(frontend, echo):
    """
    HTTP/1.0-like clients wait for the end of the connection.
    """
    answer = frontend.request(
        "inference", "POST", f"/predictions/{echo}", b"b", (("Connection", "close"),)
    )

    assert answer.header("connection") == "close"
    assert answer.is_closed


def test_upgrade_that_nobody_wants_is_an_ordinary_request(frontend, echo):
    """
    Java's HTTP client offers h2c with every first request.
    """
    client = frontend.client()
    upgrade = (("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"))

    answers = [
        client.request("POST", f"/predictions/{echo}", b"one", upgrade),
        client.request("GET", f"/predictions/{echo}", b"", upgrade),
        client.request("POST", f"/predictions/{echo}", b"two"),
    ]

    assert [answer.body for answer in answers] == [b"one", b"", b"two"]
