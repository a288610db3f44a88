"""Promise 10: what strangers send over HTTP is refused with a word and costs nobody else.

Every attack runs beside a bystander who asks for an echo all the time: none of
its requests may fail, and the server may keep none waiting beyond a bound (that
it had no processor is the machine's doing).  Memory is looked at when the attack
is over, and has to be what it was but for what allocators keep.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct

import pytest
from facts import wait_until
from live_crowds import count_connections
from live_server import RawConnection, Server

MIB = 1 << 20
ANSWERS = {400, 404, 405, 408, 413, 503}
FORM = b"application/x-www-form-urlencoded"
MULTIPART = b"multipart/form-data; boundary=B"


# How much piles up at once, and so what is kept of it, is a matter of who else computes.
pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def server_flags() -> tuple[str, ...]:
    return (
        *("--head-timeout-s", "0.5", "--body-timeout-s", "0.5", "--stall-timeout-s", "1"),
        *("--max-connections", "400", "--max-response-size", str(32 * MIB)),
    )


def many(server: Server, count: int) -> list[RawConnection]:
    return [server.connect() for _ in range(count)]


def head(length: int | None, kind: bytes = b"", method: bytes = b"POST") -> bytes:
    lines = [b"%b /predictions/echo HTTP/1.1" % method, b"Host: t"]
    if kind:
        lines.append(b"Content-Type: " + kind)
    if length is None:
        lines.append(b"Transfer-Encoding: chunked")
    else:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def post(body: bytes, kind: bytes = b"") -> bytes:
    return head(len(body), kind) + body


def refusal(client: RawConnection) -> int:
    """The status of a well-formed refusal, and the end of the connection."""
    answer = client.read_answer()
    if answer.status != 413:  # the peer's has nothing in it
        assert {"code", "type", "message"} <= answer.json.keys()
        assert answer.json["code"] == answer.status
    assert client.is_ended()
    client.close()
    return answer.status


def test_heads_that_trickle(attacked):
    """
    200 connections with half a head each: 408, and the connections are gone.
    """
    slow = many(attacked, 200)
    for number, client in enumerate(slow):
        client.send(b"POST /predictions/echo HTTP/1.1\r\nX-%d: a" % number)

    assert {refusal(client) for client in slow} == {408}


def test_connections_that_say_nothing(attacked):
    """
    They are closed as soon as a head would be.
    """
    silent = many(attacked, 200)

    for client in silent:
        with contextlib.suppress(ConnectionResetError):
            assert client.read_rest() == b""
        client.close()


def test_more_connections_than_there_may_be(attacked):
    """
    Those beyond the limit are told so; who has one keeps it.
    """
    crowd = many(attacked, 450)
    for client in crowd:
        with contextlib.suppress(OSError):
            client.send(b"GET /ping HTTP/1.1\r\nHost: t\r\n\r\n")

    statuses = []
    for client in crowd:
        with contextlib.suppress(OSError, EOFError):
            statuses.append(client.read_answer().status)
        client.close()
    assert statuses.count(200) >= 350
    assert {*statuses} <= {200, 503}


def test_bodies_that_never_come(attacked):
    """
    150 clients announce 6 MB each and send a byte: nearly a gigabyte that is
    never there keeps out nobody's body.
    """
    slow = many(attacked, 150)
    for client in slow:
        client.send(head(6_000_000) + b"x")

    answer = attacked.predict("echo", b"y" * 3 * MIB)

    assert answer.status == 200
    assert {refusal(client) for client in slow} == {408}


def test_bodies_in_chunks_of_one_byte(attacked):
    """
    A byte of body costs the sender six and us an object, unless we mind.
    """
    clients = many(attacked, 4)
    tiny = b"1\r\nx\r\n" * 20_000
    for client in clients:
        client.send(head(None))
        with contextlib.suppress(OSError):
            client.send(tiny)

    assert {refusal(client) for client in clients} == {400}


def test_a_body_of_small_chunks_that_make_sense_passes(attacked):
    """
    A log line per chunk is no attack.
    """
    with attacked.connect() as client:
        line = b"x" * 100
        client.send(head(None) + (b"%x\r\n%b\r\n" % (len(line), line)) * 10_000 + b"0\r\n\r\n")

        assert client.read_answer().body == line * 10_000


@pytest.mark.parametrize(
    "lines",
    [
        b"X: " + b"a" * 100_000 + b"\r\n",
        b"A:\r\n" * 100_000,
        b"A: b\r\n" * 300,
        b"X" * 100_000,
    ],
    ids=["long", "endless", "many", "nameless"],
)
def test_heads_beyond_all_measure(attacked, lines):
    """
    400 before anything is built of them.
    """
    clients = many(attacked, 20)
    for client in clients:
        with contextlib.suppress(OSError):
            client.send(b"GET /ping HTTP/1.1\r\nHost: t\r\n" + lines + b"\r\n")

    assert {refusal(client) for client in clients} == {400}


def part(name: bytes, body: bytes = b"x") -> bytes:
    return b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name, body)


NESTED = b"--C\r\n" * 50_000 + b"--C--\r\n"
FORMS = {
    "parts": (MULTIPART, part(b"body") * 90_000 + b"--B--\r\n", 400),
    "long part head": (MULTIPART, part(b"a" * 100_000) + b"--B--\r\n", 400),
    "part headers": (
        MULTIPART,
        b"".join(
            b'--B\r\nContent-Disposition: form-data; name="body"\r\n%b\r\nx\r\n'
            % (b"a:\r\n" * 1900)
            for _ in range(700)
        )
        + b"--B--\r\n",
        200,
    ),
    "nested": (MULTIPART, part(b"body", NESTED) + b"--B--\r\n", 200),
    "near boundaries": (MULTIPART, part(b"body", b"\r\n--A" * 1_000_000) + b"--B--\r\n", 200),
    "no end": (MULTIPART, part(b"body", b"\r\n-" * 1_000_000), 400),
    "fields": (FORM, b"a&" * 3_000_000, 400),
    "escapes": (FORM, b"body=" + b"%41" * 2_000_000, 200),
    "bad escapes": (FORM, b"body=" + b"%" * 6_000_000, 400),
}


@pytest.mark.parametrize("kind", FORMS)
def test_forms_that_are_bombs(attacked, kind):
    """
    Two at once, of the largest size that is allowed.
    """
    content_type, body, expected = FORMS[kind]
    clients = many(attacked, 2)
    for client in clients:
        client.send(post(body, content_type))

    assert {client.read_answer().status for client in clients} == {expected}
    for client in clients:
        client.close()


JSONS = {
    "deep": b"[" * 1_000_000,
    "deep and closed": b"[" * 1_000_000 + b"]" * 1_000_000,
    "deep objects": b'{"a":' * 500_000,
    "long number": b"1" * 1_000_000,
    "not unicode": b'{"do": "\xff\xfe\xc3("}',
    "half a surrogate": rb'{"do": "\ud800"}',
    "nan": b"[NaN, Infinity, -Infinity]",
    "text": b'"' + b"\\u0041" * 1_000_000 + b'"',
}


@pytest.mark.parametrize("kind", JSONS)
def test_json_beyond_all_measure(attacked, kind):
    """
    To a model (which decodes it in its worker) and to the management API.
    """
    body = JSONS[kind]

    predicted = attacked.predict("echo", body, content_type="application/json")
    managed = attacked.ask("management", "POST", "/models", body, content_type="application/json")

    assert predicted.status in {200, 400, 500, 503}
    assert managed.status in {400, 413}
    assert managed.json["code"] == managed.status
    assert attacked.predict("echo", b"still there").body == b"still there"


BROKEN = b"\xff\xfe\xc3(\xed\xa0\x80\xf0\x28\x8c\xbc"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /predictions/%b HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n" % BROKEN,
        b"POST /predictions/%%ff%%fe%%00 HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n",
        b"GET /%b?%b=%b HTTP/1.1\r\nHost: t\r\n\r\n" % (BROKEN, BROKEN, BROKEN),
        b"POST /predictions/echo HTTP/1.1\r\nHost: %b\r\nX-Request-Id: %b\r\n"
        b"Content-Length: 0\r\n\r\n" % (BROKEN, BROKEN),
        post(part(BROKEN) + b"--B--\r\n", MULTIPART),
        post(b"%b=%b" % (BROKEN, BROKEN), FORM),
        post(BROKEN, b"text/plain; charset=" + BROKEN),
        post(BROKEN, b"application/json"),
    ],
    ids=["path", "escaped path", "query", "headers", "multipart", "form", "text", "json"],
)
def test_bytes_that_are_no_text(attacked, request_bytes):
    """
    They reach a handler as they are or are refused; nobody trips over them.
    """
    with attacked.connect() as client:
        client.send(request_bytes)
        answer = client.read_answer()

    assert answer.status in {200, *ANSWERS}
    if answer.status != 200:
        assert json.loads(answer.body.decode("utf-8"))["code"] == answer.status


def test_floods_of_pipelined_requests(attacked):
    """
    Thousands of requests in one piece, for somebody who reads no answer.
    """
    clients = many(attacked, 10)
    for client in clients:
        client.socket.settimeout(0.2)
        with contextlib.suppress(OSError):
            client.send(post(b"x") * 5000)
        with contextlib.suppress(OSError):
            client.send(b"GET /ping HTTP/1.1\r\nHost: t\r\n\r\n" * 5000)

    for client in clients:
        client.close()


def test_answers_that_nobody_takes(attacked):
    """
    Ten times 20 MB wait for clients that do not read: they are cut off.
    """
    attacked.register("big", "does:handle")
    asked = json.dumps({"do": "big", "bytes": 20 * MIB}).encode()
    greedy = many(attacked, 10)
    for client in greedy:
        client.send(
            b"POST /predictions/big HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(asked), asked)
        )

    wait_until(lambda: count_connections(attacked) <= 2, "they are cut off")
    for client in greedy:
        client.close()


@pytest.mark.parametrize("seed", range(4))
def test_anything_at_all(attacked, seed):
    """
    Requests that were cut, doubled, flipped and spliced, by seed; some of
    their senders vanish in the middle.
    """
    rng = random.Random(seed)
    stems = [
        post(b"hello"),
        post(b"a=1&b=2", FORM),
        post(part(b"body") + b"--B--\r\n", MULTIPART),
        head(None) + b"5\r\nhello\r\n0\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: t\r\n\r\n",
        b"OPTIONS / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        head(5) + b"hello" + head(70_000) + b"x" * 70_000,
        b"GET /ping HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        post(b"x" * 5, b"a" * 200).replace(b"Host", b"Expect: 100-continue\r\nHost"),
    ]
    clients = []
    for _ in range(75):
        client = attacked.connect()
        client.socket.settimeout(0.3)
        clients.append(client)
        with contextlib.suppress(OSError):
            client.send(_mutated(rng, rng.choice(stems) + rng.choice(stems)))
        if rng.random() < 0.3:  # gone without a word
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()

    answered = 0
    for client in clients:
        with contextlib.suppress(OSError, EOFError):
            status = client.read_head().status
            assert status in {100, 200, 500, *ANSWERS}
            answered += 1
        client.close()
    assert answered > 20


def _mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(changed))
        what = rng.randrange(4)
        if what == 0:
            changed[at] = rng.randrange(256)
        elif what == 1:
            del changed[at : at + rng.randint(1, 30)]
        elif what == 2:
            changed[at:at] = changed[at : at + rng.randint(1, 30)]
        else:
            changed[at:at] = rng.choice((b"\r\n", b"\x00", b" ", b":", b"\r\n\r\n", b"\xff" * 9))
        if not changed:
            return b"\r\n"
    return bytes(changed)
