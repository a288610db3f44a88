"""What a body becomes for a handler, and what is refused before it is read: 2.3, 1.6."""

from __future__ import annotations

import threading

import pytest
from facts import DEADLINE_S

from stoker.frontend import bodies
from stoker.frontend.limits import Limits

BOUNDARY = "multipart/form-data; boundary=XX"


def _form(*parts: tuple[str, bytes]) -> bytes:
    pieces = [f"--XX\r\n{head}\r\n\r\n".encode() + body + b"\r\n" for head, body in parts]
    return b"".join(pieces) + b"--XX--\r\n"


@pytest.fixture
def parameters_of(frontend, supervisor, echo):
    """Send a body, return what the handler would find."""

    def send(body: bytes, content_type: str | None, method: str = "POST"):
        headers = () if content_type is None else (("Content-Type", content_type),)
        answer = frontend.request("inference", method, f"/predictions/{echo}", body, headers)
        assert answer.status == 200, answer.body
        return [tuple(one) for one in supervisor.jobs[-1].payload.parameters]

    return send


@pytest.mark.parametrize(
    ("content_type", "stripped"),
    [
        (None, ""),
        ("application/json", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("text/plain ; charset=latin-1", "text/plain"),
        ("Application/JSON", "Application/JSON"),
        ("image/jpeg", "image/jpeg"),
    ],
)
def test_whole_body_is_one_parameter_named_body(parameters_of, content_type, stripped):
    """
    The type loses its parameters and keeps its case: the worker compares exactly (2.3, 2.4).
    """
    assert parameters_of(b"\x00\xffdata", content_type) == [("body", stripped, b"\x00\xffdata")]


def test_empty_body_is_still_one_parameter(parameters_of):
    """
    A GET without a body gives the handler an empty `body` (2.3).
    """
    assert parameters_of(b"", None, "GET") == [("body", "", b"")]


def test_form_parts_keep_names_and_files_keep_types(parameters_of):
    """
    A field has no type, a file has its own or octet-stream (2.3).
    """
    body = _form(
        ('Content-Disposition: form-data; name="text"\r\nContent-Type: text/plain', b"hi"),
        ('Content-Disposition: form-data; name="a"; filename="a.jpg"', b"\x01\r\n\x02"),
        (
            'content-disposition: form-data; name="b"; filename=""\r\ncontent-type: text/plain',
            b"file",
        ),
    )

    assert parameters_of(body, BOUNDARY, "PUT") == [
        ("text", "", b"hi"),
        ("a", "application/octet-stream", b"\x01\r\n\x02"),
        ("b", "text/plain", b"file"),
    ]


def test_equal_names_stay_in_order_so_the_last_can_win(parameters_of):
    """
    The dict that the handler gets keeps the last one (2.3).
    """
    part = 'Content-Disposition: form-data; name="data"; filename="x"'

    found = parameters_of(_form((part, b"1"), (part, b"2")), BOUNDARY)

    assert [body for _, _, body in found] == [b"1", b"2"]


def test_part_larger_than_the_parsers_own_default_is_read(parameters_of):
    """
    Only max_request_size limits a part.
    """
    part = 'Content-Disposition: form-data; name="data"; filename="x"'
    large = bytes(range(256)) * 12_000

    assert parameters_of(_form((part, large)), BOUNDARY)[0][2] == large


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"hello", [("hello", "", b"")]),
        (b"a=1&b=%C3%A9&b=x+y", [("a", "", b"1"), ("b", "", "é".encode()), ("b", "", b"x y")]),
        (b"a=%ff\xfe", [("a", "", b"\xff\xfe")]),
        (b"a=1;b=2", [("a", "", b"1;b=2")]),
        (b"", []),
    ],
)
def test_urlencoded_fields_become_parameters(parameters_of, body, expected):
    """
    `curl -d hello` means a field of that name, and bytes stay bytes (2.4).
    """
    assert parameters_of(body, "Application/X-WWW-form-urlencoded") == expected


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--XX\r\n"),
        (BOUNDARY, b""),
        (BOUNDARY, b"no form at all"),
        (BOUNDARY, _form(('Content-Disposition: form-data; name="a"', b"1"))[:-12]),
        (BOUNDARY, _form(("Content-Disposition: form-data", b"nameless"))),
        (BOUNDARY, _form((b'X: form-data; name="a\xff"'.decode("latin-1"), b"1"))),
        (
            BOUNDARY,
            _form(*[('Content-Disposition: form-data; name="a"', b"")] * 1001),
        ),
        (BOUNDARY, _form((f'Content-Disposition: form-data; name="{"a" * 9000}"', b""))),
        ("application/x-www-form-urlencoded", b"a&" * 1001),
    ],
    ids=["no boundary", "empty", "junk", "cut", "nameless", "bytes", "many", "long", "fields"],
)
def test_malformed_form_is_a_400(frontend, echo, content_type, body):
    """
    Where the peer answers 500 (2.3).
    """
    answer = frontend.request(
        "inference", "POST", f"/predictions/{echo}", body, (("Content-Type", content_type),)
    )

    assert (answer.status, answer.json["type"]) == (400, "BadRequestException")


@pytest.fixture
def small(start_frontend):
    """A frontend that takes bodies of at most 1000 bytes, 1500 at once."""
    return start_frontend(max_request_size=1000, max_body_memory_bytes=1500)


def test_too_large_body_is_413_with_nothing_in_it(small, echo):
    """
    No body and no x-request-id, then the connection ends (1.6).
    """
    client = small.client()
    client.send(b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1001\r\n\r\n")

    answer = client.read()

    assert answer.status_line == "HTTP/1.1 413 Request Entity Too Large"
    assert answer.headers == [("content-length", "0"), ("connection", "close")]
    assert answer.is_closed


def test_largest_allowed_body_passes(small, echo):
    """
    The limit itself is allowed.
    """
    answer = small.request("inference", "POST", "/predictions/echo", b"x" * 1000)

    assert answer.body == b"x" * 1000


def test_client_that_expects_to_continue_is_refused_before_it_sends(small, echo):
    """
    `curl -T` asks first: 413 comes instead of 100 (1.6).
    """
    client = small.client()
    client.send(
        b"PUT /predictions/echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
        b"Content-Length: 5000\r\n\r\n"
    )

    assert client.read().status == 413


def test_client_that_expects_to_continue_is_told_to(small, echo):
    """
    curl waits a second for this line.
    """
    client = small.client()
    client.send(
        b"PUT /predictions/echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
        b"Content-Length: 5\r\n\r\n"
    )

    assert client.read().status == 100
    client.send(b"hello")
    assert client.read().body == b"hello"


def test_chunked_body_is_measured_as_it_comes(small, echo):
    """
    Without a length only counting helps.
    """
    client = small.client()
    head = b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(head + b"1f4\r\n" + b"x" * 500 + b"\r\n" + b"1f5\r\n" + b"x" * 501)

    assert client.read().status == 413


def test_chunked_body_arrives_whole(small, echo):
    """
    Pieces are the transport's business, not the handler's.
    """
    client = small.client()
    head = b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(head + b"3\r\nabc\r\n")
    client.send(b"2\r\nde\r\n0\r\n\r\n")

    assert client.read().body == b"abcde"


def test_refused_client_may_finish_sending_and_still_reads_the_answer(small, echo):
    """
    Closing over unread bytes would reset the answer away.
    """
    client = small.client()
    client.send(b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 900000\r\n\r\n")
    client.send(b"x" * 900_000)

    assert client.read().status == 413


def test_bodies_beyond_the_memory_budget_are_refused_and_may_come_again(small, echo, until):
    """
    Many middling bodies must not take more than one process may hold.
    """
    first, second = small.client(), small.client()
    head = b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\n"
    first.send(head + b"x" * 900)
    budget = small.frontend._budget
    until(lambda: budget.taken_bytes == 900, "the first body has its room")

    second.send(head)
    refused = second.read()
    first.send(b"x" * 100)
    answered = first.read()

    assert (refused.status, refused.json["type"]) == (503, "ServiceUnavailableException")
    assert refused.header("retry-after") == "1"
    assert answered.status == 200
    until(lambda: budget.taken_bytes == 0, "all room is free again")
    assert small.request("inference", "POST", "/predictions/echo", b"x" * 1000).status == 200


def test_body_that_never_comes_is_a_408(start_frontend, echo, until):
    """
    A sender of one byte a minute must not hold memory.
    """
    running = start_frontend(Limits(body_timeout_s=0.05, sweep_interval_s=0.02))
    client = running.client()
    client.send(b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc")

    answer = client.read()

    assert (answer.status, answer.json["type"]) == (408, "RequestTimeoutException")
    until(lambda: running.frontend._budget.taken_bytes == 0, "its room is free again")


def test_client_that_leaves_amid_its_body_gives_its_room_back(frontend, echo, until):
    """
    Room that is never given back is a leak that stops the server.
    """
    client = frontend.client()
    client.send(b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc")
    budget = frontend.frontend._budget
    until(lambda: budget.taken_bytes == 3, "the body has its room")

    client.close()

    until(lambda: budget.taken_bytes == 0, "its room is free again")


@pytest.fixture
def form_gate(monkeypatch):
    """Large forms are read when the test lets them; returns the gate and what happens before."""
    gate, reading = threading.Event(), threading.Event()

    def slow(*about):
        reading.set()
        assert gate.wait(DEADLINE_S)
        return bodies.read_parameters(*about)

    monkeypatch.setattr("stoker.frontend.form_reader.read_parameters", slow)
    return gate, reading


LARGE_FORM = _form(('Content-Disposition: form-data; name="data"', b"x" * 200_000))
LARGE_REQUEST = (
    b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nContent-Type: %b\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (BOUNDARY.encode(), len(LARGE_FORM), LARGE_FORM)
)


def test_large_form_keeps_nobody_waiting(frontend, echo, form_gate):
    """
    Taking it apart may take long; the others are answered meanwhile.
    """
    gate, reading = form_gate
    large = frontend.client()
    large.send(LARGE_REQUEST)
    assert reading.wait(DEADLINE_S)

    quick = frontend.request("inference", "POST", "/predictions/echo", b"b")
    gate.set()

    assert quick.body == b"b"
    assert large.read().body == b"x" * 200_000


def test_client_that_leaves_amid_a_large_form_holds_up_nobody(
    frontend, echo, form_gate, supervisor, until
):
    """
    The thread has the form still; it is the next one's turn when it is done.
    """
    gate, reading = form_gate
    site = frontend.frontend.sites[0]
    first = frontend.client()
    first.send(LARGE_REQUEST)
    assert reading.wait(DEADLINE_S)
    (connection,) = [each for each in site.connections if each._in_hand is not None]

    first.close()
    until(lambda: connection not in site.connections, "it has left")
    second = frontend.client()
    second.send(LARGE_REQUEST)
    gate.set()

    assert second.read().body == b"x" * 200_000
    assert len(supervisor.jobs) == 1
