"""What the server does with connections, heads and strangers: contracts/torchserve.md 1.2-1.6."""

from __future__ import annotations

import gc
import socket
import threading

import pytest

from stoker.errors import StokerError
from stoker.frontend.limits import Limits

MALFORMED = {"code": 400, "type": "BadRequestException", "message": "Invalid HTTP message."}
FIXED = [
    ("Pragma", "no-cache"),
    ("Cache-Control", "no-cache; no-store, must-revalidate, private"),
    ("Expires", "Thu, 01 Jan 1970 00:00:00 UTC"),
]


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 8200 + b"\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: t\r\n" + b"X: a\r\n" * 1600 + b"\r\n",
        b"GET /ping HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 30_000,
        b"GET /" + b"a" * 4096 + b" HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /" + b"a" * 30_000,
        b"POST /ping HTTP/1.1\r\nHost: t\r\nContent-Length: x\r\n\r\n",
        b"POST /ping HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /ping HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT evil:443 HTTP/1.1\r\nHost: evil\r\n\r\n",
        b"GET /ping HTTP/0.9\r\nHost: t\r\n\r\n",
        b"GET /ping HTTP/2.0\r\nHost: t\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=[
        "junk",
        "long header",
        "many headers",
        "endless header",
        "long line",
        "endless line",
        "bad length",
        "two framings",
        "bad chunk",
        "connect",
        "version 0.9",
        "version 2.0",
        "tls",
    ],
)
def test_malformed_http_is_a_400_of_the_usual_shape(frontend, sent):
    """
    Even what is not HTTP gets an answer that says so (1.6).
    """
    client = frontend.client()
    client.send(sent)

    answer = client.read()

    assert answer.status_line == "HTTP/1.1 400 Bad Request"
    assert answer.json == MALFORMED
    assert answer.header("content-type") == "application/json"
    assert answer.headers[2:5] == FIXED
    assert len(answer.header("x-request-id")) == 36
    assert answer.is_closed


def test_longest_allowed_request_line_and_header_pass(frontend, echo):
    """
    The limits themselves are allowed.
    """
    target = f"/predictions/{echo}?{'q' * 4000}"

    answer = frontend.request("inference", "POST", target, b"b", (("X", "a" * 8000),))

    assert answer.status == 200


def test_no_server_or_date_header(frontend):
    """
    The peer sends neither (1.3).
    """
    answer = frontend.request("inference", "GET", "/nothing")

    assert answer.header("server") is None
    assert answer.header("date") is None


def test_unknown_route_is_a_404_that_closes(frontend):
    """
    Byte for byte (1.4-1.6).
    """
    answer = frontend.request("inference", "GET", "/nothing/here")

    assert answer.status_line == "HTTP/1.1 404 Not Found"
    assert answer.body == (
        b'{\n  "code": 404,\n  "type": "ResourceNotFoundException",\n  "message": '
        b'"Requested resource is not found, please refer to API document."\n}\n'
    )
    assert answer.is_closed


@pytest.mark.parametrize("target", ["*", "http://test/ping/x", "/a%00b", "//", "/%ff%fe", "/\xff"])
def test_strange_targets_are_answered(frontend, target):
    """
    Nothing that the parser lets through may end in a 500.
    """
    client = frontend.client()
    client.send(f"OPTIONS {target} HTTP/1.1\r\nHost: t\r\n\r\n".encode("latin-1"))

    assert client.read().status in (200, 400, 404)


def test_idle_connection_is_closed(start_frontend, echo):
    """
    Forgotten connections must not pile up.
    """
    running = start_frontend(Limits(idle_timeout_s=0.05, sweep_interval_s=0.02))
    client = running.client()
    client.request("POST", "/predictions/echo", b"b")

    assert client.read_rest() == b""


def test_connection_that_says_nothing_is_closed(start_frontend):
    """
    A thousand silent connections are an old attack.
    """
    running = start_frontend(Limits(header_timeout_s=0.05, sweep_interval_s=0.02))
    client = running.client()

    with pytest.raises((ConnectionResetError, EOFError)):
        client.read_until(b"\r\n")


def test_head_that_never_ends_is_a_408(start_frontend):
    """
    Whoever sends a byte now and then holds a connection no longer than others.
    """
    running = start_frontend(Limits(header_timeout_s=0.05, sweep_interval_s=0.02))
    client = running.client()
    client.send(b"GET /ping HT")

    answer = client.read()

    assert (answer.status, answer.json["type"]) == (408, "RequestTimeoutException")
    assert answer.is_closed


def test_client_that_reads_nothing_of_a_stream_is_cut_off(start_frontend, supervisor, until):
    """
    A stalled reader holds a worker's answer and our memory.
    """
    running = start_frontend(Limits(stall_timeout_s=0.05, sweep_interval_s=0.02))
    supervisor.models["m"] = lambda job: [job.chunk(b"x" * 100_000) for _ in range(200)]
    client = running.client()
    client.send(b"POST /predictions/m HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")

    until(lambda: bool(supervisor.cancelled), "the job is cancelled")


def test_connections_beyond_the_limit_are_not_served(start_frontend, until):
    """
    Every connection costs memory, whoever opens it.
    """
    running = start_frontend(Limits(connections=1))
    first = running.client()
    first.request("GET", "/nothing")
    kept = running.client()
    until(lambda: len(running.frontend.sites[0].connections) == 1, "one is served")

    surplus = running.client().read()

    assert (surplus.status, surplus.header("retry-after")) == (503, "1")
    assert surplus.is_closed
    kept.close()


def test_unix_socket_is_a_listener(start_frontend, short_folder, echo):
    """
    `unix:/path` is an address like any other (1.1).
    """
    running = start_frontend(inference_address=f"unix:{short_folder}/http.sock")

    answer = running.request("inference", "POST", f"/predictions/{echo}", b"b")

    assert answer.body == b"b"


def test_cors_headers_are_added_unless_the_handler_sets_them(start_frontend, supervisor, echo):
    """
    To every response, errors included (1.3).
    """
    running = start_frontend(cors_allowed_origin="*", cors_allowed_methods="GET, POST")
    name = "access-control-allow-origin"
    supervisor.models["own"] = lambda job: [job.final(b"", headers=((name, "https://a"),))]

    plain = running.request("inference", "POST", f"/predictions/{echo}")
    own = running.request("inference", "POST", "/predictions/own")
    missing = running.request("inference", "POST", "/nothing")

    assert [plain.header(name), own.header(name), missing.header(name)] == ["*", "https://a", "*"]
    assert own.names.count(name) == 1
    assert plain.header("access-control-allow-methods") == "GET, POST"
    assert plain.header("access-control-allow-headers") is None


def test_shared_address_serves_inference_management_and_metrics(start_frontend, supervisor, echo):
    """
    Routes by path and method, so describe by version works where the peer's does not (1.2).
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    running = start_frontend(inference_address=address, management_address=address)
    supervisor.verbs["list"] = lambda arguments: {"total": 0, "models": []}
    supervisor.verbs["describe"] = lambda arguments: {"versions": []}
    supervisor.verbs["statistics"] = lambda arguments: {}

    answers = [
        running.request("inference", "POST", f"/predictions/{echo}", b"b"),
        running.request("inference", "GET", "/models"),
        running.request("inference", "GET", "/models/m/1.0"),
        running.request("inference", "GET", "/metrics"),
        running.request("metrics", "GET", "/metrics"),
    ]

    assert [answer.status for answer in answers] == [200] * 5
    document = running.request("inference", "OPTIONS", "/").json
    assert {"/ping", "/models", "/metrics"} <= document["paths"].keys()
    assert len(running.sockets) == 2


def test_drain_finishes_what_is_in_hand_and_refuses_what_is_new(start_frontend, supervisor, until):
    """
    A stop loses no answer, and says to everybody else when to come again: on a connection that
    was there, on a new one, and to who had sent half a head.
    """
    running = start_frontend()
    supervisor.models["m"] = lambda job: []
    busy, idle, halfway, silent = (running.client() for _ in range(4))
    for each in (idle, silent):
        assert each.request("OPTIONS", "/").status == 200
    halfway.send(b"GET /models HTTP/1.1\r\nHo")
    busy.send(b"POST /predictions/m HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
    until(lambda: bool(supervisor.jobs), "a request is in hand")

    running.ask_to_stop()
    until(lambda: running.server.state.is_draining, "it drains")
    late = running.client()
    halfway.send(b"st: t\r\n\r\n")
    refused = [idle.request("POST", "/predictions/m"), late.request("GET", "/ping"), halfway.read()]
    for each in (idle, late, halfway):
        each.close()
    supervisor.send_later(supervisor.jobs[-1].final(b"done"))
    answer = busy.read()

    assert (answer.status, answer.body) == (200, b"done")
    assert answer.header("connection") == "close"
    assert [each.status for each in refused] == [503] * 3
    assert {each.json["type"] for each in refused} == {"ServiceUnavailableException"}
    assert {each.header("retry-after") for each in refused} == {"1"}
    assert {each.header("connection") for each in refused} == {"close"}
    assert silent.read_rest() == b""
    running.wait_stopped()


def test_what_had_begun_to_come_is_answered_and_what_follows_is_not(
    start_frontend, supervisor, until
):
    """
    Half a body in when the server is told to stop; a pipelined request behind it is not
    touched, and the client knows by `connection: close`.
    """
    running = start_frontend()
    supervisor.models["m"] = lambda job: [job.final(job.payload.parameters[-1].body)]
    client = running.client()
    client.send(b"POST /predictions/m HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nha")
    until(lambda: running.server.state.is_busy, "half of it is there")

    running.ask_to_stop()
    until(lambda: running.server.state.is_draining, "it drains")
    client.send(b"lfPOST /predictions/m HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
    answer = client.read()

    assert (answer.status, answer.body) == (200, b"half")
    assert answer.header("connection") == "close"
    assert client.read_rest() == b""
    assert len(supervisor.jobs) == 1
    running.wait_stopped()


def test_many_clients_at_once_each_get_their_own_answer(frontend, echo):
    """
    Answers go to who asked.
    """
    wrong: list[tuple[bytes, bytes]] = []

    def ask(name: int) -> None:
        client = frontend.client()
        for i in range(20):
            body = f"{name}-{i}".encode()
            answer = client.request("POST", f"/predictions/{echo}", body)
            if answer.body != body:
                wrong.append((body, answer.body))

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_cors_headers_are_on_every_answer_and_a_preflight_is_no_special_case(
    start_frontend, supervisor, echo
):
    """
    A browser's first question is a description like any other (1.3); refusals carry them too.
    """
    supervisor.verbs["describe"] = lambda arguments: {"versions": []}
    running = start_frontend(
        cors_allowed_origin="https://app.example",
        cors_allowed_methods="GET, POST, OPTIONS",
        cors_allowed_headers="content-type, authorization",
    )
    asking = (("Origin", "https://app.example"), ("Access-Control-Request-Method", "POST"))

    answers = [
        running.request("inference", "OPTIONS", "/predictions/echo", b"", asking),
        running.request("inference", "POST", "/predictions/echo", b"hi"),
        running.request("inference", "GET", "/nowhere"),
        running.request("management", "DELETE", "/models"),
        running.request("inference", "GET", "/x\x01"),
    ]

    assert [answer.status for answer in answers] == [200, 200, 404, 405, 400]
    for answer in answers:
        assert [pair for pair in answer.headers if pair[0].startswith("access-control-")] == [
            ("access-control-allow-origin", "https://app.example"),
            ("access-control-allow-methods", "GET, POST, OPTIONS"),
            ("access-control-allow-headers", "content-type, authorization"),
        ]


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /predictions/echo HTTP/1.1\r\nContent-Length: x\r\n\r\n" + b"y" * 50_000,
        b"POST /predictions/echo HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + b"y" * 50_000,
        b"POST /predictions/echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n80\r\n"
        + b"y" * 0x80
        + b"\r\nzz\r\n",
        b"POST /predictions/echo HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=X\r\n"
        b"Content-Length: 100000\r\n\r\n" + b"y" * 100_000,
        b"POST /predictions/echo HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=X\r\n"
        b"Content-Length: 100\r\n\r\n" + b"y" * 100,
        b"POST /predictions/%6eobody HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"POST /predictions/nobody HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["malformed", "too large", "bad chunk", "large form", "form", "long way", "short way"],
)
def test_refusals_leave_nothing_for_the_collector(frontend, echo, until, sent):
    """
    An error that holds its frames, and is held by them, holds what they read:
    a flood of refused requests would take memory until the collector comes.
    """

    def errors_alive():
        return [each for each in gc.get_objects() if isinstance(each, StokerError)]

    gc.collect()
    gc.disable()
    try:
        client = frontend.client()
        client.send(sent)
        assert client.read().status in (400, 404, 413)
        until(lambda: not errors_alive(), "the error is gone")
    finally:
        gc.enable()


class Watched:
    """A connection that counts how often the sweep has looked at it."""

    def __init__(self, connection):
        self._connection = connection
        self.looks = 0

    def sweep(self, now):
        self.looks += 1
        return self._connection.sweep(now)


def test_last_answer_on_a_connection_is_taken_as_slowly_as_any(start_frontend, supervisor, until):
    """
    Who asked for the end of the connection has not asked for the end of the answer.
    """
    running = start_frontend(Limits(linger_s=0.01, sweep_interval_s=0.01))
    supervisor.models["m"] = lambda job: [job.final(b"x" * 5_000_000)]
    client = running.client()
    site = running.frontend.sites[0]
    (connection,) = until(lambda: [*site.connections], "it is connected")
    watched = Watched(connection)
    site.connections.remove(connection)
    site.connections.add(watched)
    client.send(
        b"POST /predictions/m HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    until(connection.transport.is_closing, "the answer is on its way")
    seen = watched.looks
    until(lambda: watched.looks > seen + 5, "it was looked at")

    assert client.read().body == b"x" * 5_000_000
