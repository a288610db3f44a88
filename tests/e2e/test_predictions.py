"""Predictions through the whole chain: contracts/torchserve.md 2.3-2.7 and 8.2."""

from __future__ import annotations

import json
import re
import time

import pytest

pytestmark = pytest.mark.slow

JSON = "application/json"
MIB = 1 << 20


@pytest.fixture
def probe(server):
    """A model that tells what it was given."""
    server.register("probe", "probe:handle")
    return server


@pytest.fixture
def does(server):
    """A model that does as its JSON body says."""
    server.register("m", "does:handle")

    def ask(model="m", **asked):
        return server.predict(model, json.dumps(asked), content_type=JSON)

    return ask


# -- what the handler gets (2.3, 2.4) --------------------------------------------------


@pytest.mark.parametrize(
    ("line", "data"),
    [
        ("-T {file}", {"body": ["bytearray", "\x00raw\xff"]}),
        ("-F data=@{file}", {"data": ["bytearray", "\x00raw\xff"]}),
        ("-F 'data=@{file};type=application/json'", {"data": ["bytearray", "\x00raw\xff"]}),
        ("-F data=plain", {"data": ["bytearray", "plain"]}),
        ("-F a=1 -F b=2", {"a": ["bytearray", "1"], "b": ["bytearray", "2"]}),
        ("-F a=1 -F a=2", {"a": ["bytearray", "2"]}),
        ("-F 'j={{\"a\": 1}};type=application/json'", {"j": ["bytearray", '{"a": 1}']}),
        ("-F 'j=@{json};type=application/json'", {"j": ["dict", {"a": 1}]}),
        ("-F 't=@{json};type=text/plain'", {"t": ["str", '{"a": 1}']}),
        ("-d hello", {"hello": ["bytearray", ""]}),
        ("-d 'x=1&y=%20z+w'", {"x": ["bytearray", "1"], "y": ["bytearray", " z w"]}),
        ("-H 'Content-Type: application/json' -d '{{\"a\":1}}'", {"body": ["dict", {"a": 1}]}),
        ("-H 'Content-Type: application/json' -d '[1, \"b\"]'", {"body": ["list", [1, "b"]]}),
        ("-H 'Content-Type: text/plain' -d hi", {"body": ["str", "hi"]}),
        (
            "-H 'Content-Type: application/json; charset=utf-8' -d '{{\"a\":1}}'",
            {"body": ["dict", {"a": 1}]},
        ),
        ("-H 'Content-Type: application/json' -d '{{broken'", {"body": ["bytearray", "{broken"]}),
        ("-H 'Content-Type: Application/JSON' -d '{{}}'", {"body": ["bytearray", "{}"]}),
        ("-H 'Content-Type: application/octet-stream' -d x", {"body": ["bytearray", "x"]}),
        ("-X POST", {"body": ["bytearray", ""]}),
        ("", {"body": ["bytearray", ""]}),
    ],
)
def test_every_form_of_body_reaches_the_handler_as_the_contract_says(probe, tmp_path, line, data):
    """
    0.2 calls these the points most often got wrong; real curl builds the bodies.
    """
    (tmp_path / "raw").write_bytes(b"\x00raw\xff")
    (tmp_path / "json").write_bytes(b'{"a": 1}')
    line = line.format(file=tmp_path / "raw", json=tmp_path / "json")

    answer = probe.curl(f"curl {line} http://localhost:8080/predictions/probe")

    assert answer.json["data"] == data


def test_broken_text_reaches_the_handler_as_bytes(probe):
    """
    2.4: `text*` is str, and bytearray if it is no UTF-8.
    """
    answer = probe.predict("probe", b"\xff\xfe", content_type="text/plain")

    assert answer.json["data"] == {"body": ["bytearray", "\xff\xfe"]}


def test_query_of_a_prediction_is_ignored(probe):
    """
    2.3, a quirk that clients rely on: surprising, and it must not crash.
    """
    answer = probe.ask("inference", "GET", "/predictions/probe?body=x&%ZZ")

    assert answer.json["data"] == {"body": ["bytearray", ""]}


def test_request_headers_reach_the_handler_as_the_client_spelled_them(probe):
    """
    2.5: spelling kept, parameters described, `explain` and `url_path` added.
    """
    with probe.connect() as connection:
        connection.send(
            b"POST /predictions/probe/1.0/some/rest HTTP/1.1\r\nHost: h\r\nX-Mixed-Case: A\r\n"
            b"ts_request_sequence_id: 7\r\nexplain: mine\r\nContent-Type: text/plain\r\n"
            b"Content-Length: 2\r\n\r\nhi"
        )
        headers = connection.read_answer().json["headers"]

    assert headers["X-Mixed-Case"] == "A"
    assert headers["ts_request_sequence_id"] == "7"
    assert headers["Content-Type"] == "text/plain"
    assert headers["explain"] == "False"
    assert headers["url_path"] == "some/rest"
    assert headers["body"] == {"content-type": "text/plain"}


@pytest.mark.parametrize("path", ["/predictions/probe", "/predictions/probe/1.0"])
def test_url_path_is_empty_without_a_rest(probe, path):
    """
    2.5: the header is always there.
    """
    answer = probe.ask("inference", "POST", path, b"x")

    assert answer.json["headers"]["url_path"] == ""


def test_request_id_is_the_same_in_the_answer_and_in_the_handler(probe):
    """
    0.2 point 5; the id that handlers log is the one that clients can quote.
    """
    answer = probe.predict("probe", b"x")

    assert re.fullmatch(r"[0-9a-f-]{36}", answer.header("x-request-id"))
    assert answer.json["request_id"] == answer.header("x-request-id")


def test_clients_request_id_is_honoured(probe):
    """
    contracts/README.md: 1-128 visible ASCII characters are kept, anything else replaced.
    """
    kept = probe.predict("probe", b"x", x_request_id="mine-1")
    replaced = probe.predict("probe", b"x", x_request_id="m" * 129)

    assert (kept.header("x-request-id"), kept.json["request_id"]) == ("mine-1", "mine-1")
    assert replaced.json["request_id"] == replaced.header("x-request-id") != "m" * 129


def test_versions_are_addressed_by_path(server):
    """
    /predictions/m/2.0; without a version the default answers.
    """
    server.register("m", "noop:handle")
    server.register("m", "appendix:handle", model_version="2.0")

    answers = [
        server.predict(path, "dict", content_type="text/plain").body
        for path in ("m", "m/1.0", "m/2.0")
    ]
    assert server.manage("PUT", "/models/m/2.0/set-default").status == 200
    default = server.predict("m", "dict", content_type="text/plain").body

    assert answers == [b"OK", b"OK", b'{\n  "a": 1\n}']
    assert default == b'{\n  "a": 1\n}'


# -- results (2.6) ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "body"),
    [
        ("bytes", b"\x00\xff"),
        ("bytearray", b"\x01\xfe"),
        ("str", "h\u00e9 \u20ac".encode()),
        ("dict", b'{\n  "a": 1,\n  "b": "\\u00e9"\n}'),
        ("list", b"[\n  1,\n  [\n    2,\n    3\n  ]\n]"),
        ("int", b"7"),
        ("float", b"0.5"),
        ("bool", b"true"),
        ("none", b"null"),
    ],
)
def test_results_are_encoded_as_the_contract_says(does, do, body):
    """
    2.6: bytes and str as they are, anything else as indented ASCII JSON, and no content type.
    """
    answer = does(do=do)

    assert (answer.status, answer.body) == (200, body)
    assert answer.header("content-type") is None


def test_handler_sets_content_type_and_headers_but_not_the_fixed_ones(does):
    """
    2.6 and 1.3: Pragma, Cache-Control and Expires are the server's.
    """
    answer = does(do="dress")

    assert answer.header("content-type") == "image/png"
    assert ("X-Custom-Header", "7") in answer.headers
    assert answer.header("pragma") == "no-cache"


def test_handler_sets_status_and_phrase(does):
    """
    2.6: `set_response_status(code, phrase, idx)`.
    """
    answer = does(do="status", code=201, phrase="Made", text="done")

    assert (answer.status, answer.reason, answer.body) == (201, "Made", b"done")
    assert answer.header("connection") == "keep-alive"


# -- batching (8.2) --------------------------------------------------------------------


def ask_many(server, model, bodies):
    return [server.later(server.predict, model, body, content_type=JSON) for body in bodies]


def test_requests_that_come_together_are_handled_together(server):
    """
    Dynamic batching: `len(data)` is what the handler saw.
    """
    server.register("probe", "probe:handle", batch_size=4, max_batch_delay=10_000)

    asked = ask_many(server, "probe", ["1", "2", "3", "4"])
    answers = [each.answer() for each in asked]

    assert [answer.json["batch"] for answer in answers] == [4] * 4
    assert [answer.json["data"]["body"] for answer in answers] == [["int", n] for n in (1, 2, 3, 4)]
    ids = [answer.json["request_id"] for answer in answers]
    assert ids == [answer.header("x-request-id") for answer in answers]
    assert len(set(ids)) == 4


def test_a_lone_request_waits_for_company_no_longer_than_the_delay(server):
    """
    max_batch_delay in milliseconds, counted from the request's arrival.
    """
    server.register("probe", "probe:handle", batch_size=4, max_batch_delay=300)

    started_at = time.monotonic()
    answer = server.predict("probe", b"x")
    took_s = time.monotonic() - started_at

    assert answer.json["batch"] == 1
    assert 0.3 <= took_s < 2.0


def test_without_a_delay_nobody_waits(server):
    """
    max_batch_delay=0: a free worker never waits for company.
    """
    server.register("probe", "probe:handle", batch_size=4, max_batch_delay=0)

    assert server.predict("probe", b"x").json["batch"] == 1


def test_what_queues_behind_a_busy_worker_becomes_one_batch(server):
    """
    The point of batching: what arrived during one batch is the next one.
    """
    server.register("m", "does:handle", batch_size=8, max_batch_delay=0)
    gate = server.gate("batch")
    first = server.later(server.predict, "m", '{"gate": "batch"}', content_type=JSON)
    gate.wait_reached()

    asked = ask_many(server, "m", ['{"do": "wrong-length"}', '{"do": "ok"}', '{"do": "ok"}'])
    wait_pending(server, "m", 3)
    gate.let_go()

    assert first.answer().body == b"OK"
    # One of them breaks the call, so all that were in its batch fail with it.
    assert [each.answer().status for each in asked] == [503] * 3


def wait_pending(server, model, count):
    end = time.monotonic() + 10
    while server.describe(model)["jobQueueStatus"]["pendingRequests"] != count:
        assert time.monotonic() < end, server.describe(model)


def test_one_items_error_leaves_its_neighbours_alone(server):
    """
    Issue point 4: "a result or error per item".
    """
    server.register("m", "does:handle", batch_size=4, max_batch_delay=10_000)

    asked = ask_many(
        server,
        "m",
        [
            '{"do": "ok"}',
            '{"do": "refuse", "message": "field x missing", "code": 422}',
            '{"do": "unsupported"}',
            '{"do": "status", "code": 418}',
        ],
    )
    answers = [each.answer() for each in asked]

    assert [answer.status for answer in answers] == [200, 422, 503, 418]
    assert answers[0].body == b"OK"
    assert answers[1].json["message"] == "field x missing"
    assert answers[2].json["message"] == "Unsupported model output data type."
    assert answers[3].body == b"teapot"


# -- streaming (2.7) -------------------------------------------------------------------


def stream(connection, asked, model="s"):
    body = json.dumps(asked).encode()
    connection.send(
        b"POST /predictions/%b HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (model.encode(), len(body), body)
    )


def test_pieces_arrive_while_the_handler_still_works(server):
    """
    2.7: one chunk per intermediate result, each read before the handler may go on.
    """
    server.register("s", "streams:handle")
    first, second = server.gate("first"), server.gate("second")
    with server.connect() as connection:
        stream(connection, {"pieces": [["one", "first"], ["two", "second"]], "last": "three"})

        head = connection.read_head()
        assert connection.read_chunk() == b"one"
        first.let_go()
        assert connection.read_chunk() == b"two"
        second.let_go()
        assert connection.read_chunk() == b"three"
        assert connection.read_chunk() == b""

    assert head.status == 200
    assert head.header("transfer-encoding") == "chunked"
    assert head.header("content-length") is None
    assert head.header("content-type") == "text/event-stream"
    assert head.header("ts_stream_next") == "true"


def test_a_generator_streams_without_a_helper(server):
    """
    Issue point 4: "streaming answers (intermediate results as chunks)".
    """
    server.register("s", "does:handle")
    gate = server.gate("more")
    with server.connect() as connection:
        stream(connection, {"do": "generate", "pieces": ["a", "b"], "gate": "more"})

        connection.read_head()
        assert [connection.read_chunk(), connection.read_chunk()] == [b"a", b"b"]
        gate.let_go()
        rest = connection.read_chunk()

    assert rest == b""


def test_stream_that_fails_has_no_end(server):
    """
    2.7: after the first chunk only a missing terminating chunk tells the truth.
    """
    server.register("s", "streams:handle")
    with server.connect() as connection:
        stream(connection, {"pieces": [["one", ""]], "raise": "broken"})

        connection.read_head()
        assert connection.read_chunk() == b"one"
        with pytest.raises(EOFError):
            connection.read_chunk()

    assert server.predict("s", '{"pieces": []}', content_type=JSON).status == 200


def test_connection_is_used_again_after_a_stream(server):
    """
    A stream is one answer like any other.
    """
    server.register("s", "streams:handle")
    with server.connect() as connection:
        for _ in range(2):
            stream(connection, {"pieces": [["one", ""]], "last": "two"})
            connection.read_head()
            pieces = []
            while piece := connection.read_chunk():
                pieces.append(piece)
            assert b"".join(pieces) == b"onetwo"


# -- sizes -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_536, MIB, 6 * MIB, 6_553_500])
def test_large_bodies_come_back_whole(server, size):
    """
    Up to max_request_size and max_response_size, which are 6553500 by default (0.2 point 23).
    """
    server.register("echo", "echo:handle")
    body = bytes(range(256)) * (size // 256 + 1)

    answer = server.predict("echo", body[:size], timeout_s=30)

    assert answer.status == 200
    assert answer.body == body[:size]


def test_larger_body_is_refused_before_it_is_sent(server):
    """
    1.6: 413, empty body, and with `Expect: 100-continue` before the body.
    """
    server.register("echo", "echo:handle")
    with server.connect() as connection:
        connection.send(
            b"POST /predictions/echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
            b"Content-Length: 6553501\r\n\r\n"
        )

        answer = connection.read_answer()
        assert connection.is_ended()

    assert (answer.status, answer.body) == (413, b"")
    assert answer.header("x-request-id") is None


def test_larger_body_without_a_length_is_cut_off(server):
    """
    A chunked body says its size only by arriving; curl sends it all and reads the answer.
    """
    server.register("echo", "echo:handle")
    with server.connect() as connection:
        connection.send(
            b"POST /predictions/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        for _ in range(101):
            connection.send(piece)

        answer = connection.read_answer()

    assert (answer.status, answer.body) == (413, b"")
