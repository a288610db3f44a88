"""contracts/torchserve.md, Appendix A: what goes over the socket, byte for byte.

A5 has fields of the page that the peer never emits (`engine`, `status`), and
values of the day (`startTime`, `pid`, `memoryUsage`); everything else is the
appendix's text.
"""

from __future__ import annotations

import json
import re

import pytest

pytestmark = pytest.mark.slow

FIXED = (
    "Pragma: no-cache\r\n"
    "Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
    "Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)
UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def exchange(server, listener, request_line, body="", content_type=""):
    """Send a request and return all bytes of the answer; the request id becomes `ID`."""
    head = f"{request_line} HTTP/1.1\r\nHost: localhost\r\n"
    if content_type:
        head += f"Content-Type: {content_type}\r\n"
    if body or not request_line.startswith("GET"):
        head += f"Content-Length: {len(body)}\r\n"
    with server.connect(listener) as connection:
        connection.send(f"{head}\r\n{body}".encode())
        answer_head = connection.read_until(b"\r\n\r\n").decode()
        length = re.search(r"^content-length: (\d+)", answer_head, re.M)
        answer_body = connection.read_exactly(int(length[1])).decode()
        if "\r\nconnection: close\r\n" in answer_head:
            assert connection.is_ended()
    answer_head, ids = re.subn(f"x-request-id: {UUID4}", "x-request-id: ID", answer_head)
    assert ids == 1
    return answer_head + answer_body


def json_answer(status_line, body, connection="keep-alive"):
    return (
        f"HTTP/1.1 {status_line}\r\ncontent-type: application/json\r\nx-request-id: ID\r\n{FIXED}"
        f"content-length: {len(body)}\r\nconnection: {connection}\r\n\r\n{body}"
    )


def plain_answer(status_line, body, connection="keep-alive"):
    return (
        f"HTTP/1.1 {status_line}\r\nx-request-id: ID\r\n{FIXED}"
        f"content-length: {len(body)}\r\nconnection: {connection}\r\n\r\n{body}"
    )


def test_a1_ping(server):
    """
    A1: also on a server without any model.
    """
    answer = exchange(server, "inference", "GET /ping")

    expected = json_answer("200 OK", '{\n  "status": "Healthy"\n}\n')
    assert answer == expected
    assert "content-length: 26\r\n" in expected


def test_a2_register(server):
    """
    A2: 0 workers is the default outcome and is 200.
    """
    answer = exchange(server, "management", "POST /models?url=demo.mar")

    assert answer == json_answer(
        "200 OK",
        '{\n  "status": "Model \\"demo\\" Version: 1.0 registered with 0 initial workers. '
        'Use scale workers API to add workers for the model."\n}\n',
    )


def test_a3_prediction_without_a_worker(server):
    """
    A3: refused at once, in the peer's words, and the connection closed.
    """
    exchange(server, "management", "POST /models?url=demo.mar")

    answer = exchange(server, "inference", "POST /predictions/demo")

    assert answer == json_answer(
        "503 Service Unavailable",
        '{\n  "code": 503,\n  "type": "ServiceUnavailableException",\n'
        '  "message": "Model \\"demo\\" has no worker to serve inference request. Please use '
        "scale workers API to add workers. If this is a sequence inference, please check if it "
        'is closed, or expired; or exceeds maxSequenceJobQueueSize"\n}\n',
        "close",
    )


@pytest.mark.parametrize(
    ("path", "status_line", "text"),
    [
        ("demo?min_worker=2&synchronous=true", "200 OK", "Workers scaled to 2 for model: demo"),
        (
            "demo/1.0?min_worker=2&synchronous=true",
            "200 OK",
            "Workers scaled to 2 for model: demo, version: 1.0",
        ),
        ("demo?min_worker=2", "202 Accepted", "Processing worker updates..."),
    ],
)
def test_a4_scale(server, path, status_line, text):
    """
    A4: the version is named only if the path named it.
    """
    exchange(server, "management", "POST /models?url=demo.mar")

    answer = exchange(server, "management", f"PUT /models/{path}")

    assert answer == json_answer(status_line, f'{{\n  "status": "{text}"\n}}\n')


A5 = """[
  {
    "modelName": "demo",
    "modelVersion": "1.0",
    "modelUrl": "demo.mar",
    "engine": "Torch",
    "runtime": "python",
    "minWorkers": 2,
    "maxWorkers": 2,
    "batchSize": 1,
    "maxBatchDelay": 100,
    "responseTimeout": 120,
    "startupTimeout": 120,
    "maxRetryTimeoutInSec": 300,
    "clientTimeoutInMills": 0,
    "parallelType": "",
    "parallelLevel": 0,
    "deviceType": "cpu",
    "continuousBatching": false,
    "useJobTicket": false,
    "useVenv": false,
    "stateful": false,
    "sequenceMaxIdleMSec": 0,
    "sequenceTimeoutMSec": 0,
    "maxNumSequence": 0,
    "maxSequenceJobQueueSize": 0,
    "status": "Healthy",
    "loadedAtStartup": false,
    "workers": [
      {
        "id": "9000",
        "startTime": "WHEN",
        "status": "READY",
        "memoryUsage": BYTES,
        "pid": PID,
        "gpu": false,
        "gpuUsage": "N/A"
      },
      {
        "id": "9001",
        "startTime": "WHEN",
        "status": "READY",
        "memoryUsage": BYTES,
        "pid": PID,
        "gpu": false,
        "gpuUsage": "N/A"
      }
    ],
    "jobQueueStatus": {
      "remainingCapacity": 100,
      "pendingRequests": 0
    }
  }
]
"""


def test_a5_describe(start_server):
    """
    A5: every field in order; ids begin at 9000 on a fresh server.
    """
    server = start_server()
    exchange(server, "management", "POST /models?url=demo.mar")
    exchange(server, "management", "PUT /models/demo?min_worker=2&synchronous=true")

    answer = exchange(server, "management", "GET /models/demo")

    head, _, body = answer.partition("\r\n\r\n")
    pids = [worker["pid"] for worker in json.loads(body)[0]["workers"]]
    assert set(pids) <= {process.pid for process in server.tree()}
    shown = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "WHEN", body)
    shown = re.sub(r'"pid": \d+', '"pid": PID', shown)
    shown = re.sub(r'"memoryUsage": [1-9]\d{6,}', '"memoryUsage": BYTES', shown)
    assert shown == A5
    assert f"{head}\r\n\r\n" == json_answer("200 OK", body).removesuffix(body)


@pytest.fixture
def does(server):
    """A model that does as its JSON body says."""
    server.register("m", "does:handle")

    def ask(**asked):
        return exchange(
            server, "inference", "POST /predictions/m", json.dumps(asked), "application/json"
        )

    return ask


@pytest.mark.parametrize(("do", "body"), [("dict", '{\n  "a": 1\n}'), ("ok", "OK")])
def test_a6_results_have_no_reason_and_no_content_type(server, do, body):
    """
    A6: `HTTP/1.1 200 ` with an empty reason; JSON is indented and has no newline at its end.
    """
    server.register("m", "appendix:handle")

    answer = exchange(server, "inference", "POST /predictions/m", do, "text/plain")

    assert answer == plain_answer("200 ", body)


def test_a7_a_refusal_has_the_handlers_status_and_sentence(does):
    """
    A7: PredictionException("field x missing", 422).
    """
    answer = does(do="raise-refusal", message="field x missing", code=422)

    status_line, _, rest = answer.partition("\r\n")
    assert status_line.startswith("HTTP/1.1 422 ")
    assert rest == json_answer(
        "",
        '{\n  "code": 422,\n  "type": "InternalServerException",\n'
        '  "message": "field x missing"\n}\n',
        "close",
    ).removeprefix("HTTP/1.1 \r\n")


def test_a8_a_handlers_error_status_keeps_its_body_and_closes(does):
    """
    A8: set_response_status(418) with the handler's own body.
    """
    answer = does(do="status", code=418, text="teapot")

    assert answer == plain_answer("418 ", "teapot", "close")


def test_a9_ping_without_the_key(start_server):
    """
    A9: a refusal of a key is a 400, and there is no 401.
    """
    server = start_server("--disable-token-authorization", "false")

    answer = exchange(server, "inference", "GET /ping")

    assert answer == json_answer(
        "400 Bad Request",
        '{\n  "code": 400,\n  "type": "InvalidKeyException",\n'
        '  "message": "Token Authorization failed. Token either incorrect, expired, or not '
        'provided correctly"\n}\n',
        "close",
    )


def test_a10_register_while_the_model_api_is_off(start_server):
    """
    A10: as a method that does not exist.
    """
    server = start_server("--enable-model-api", "false")

    answer = exchange(server, "management", "POST /models?url=x.mar")

    assert answer == json_answer(
        "405 Method Not Allowed",
        '{\n  "code": 405,\n  "type": "MethodNotAllowedException",\n'
        '  "message": "Requested method is not allowed, please refer to API document."\n}\n',
        "close",
    )
