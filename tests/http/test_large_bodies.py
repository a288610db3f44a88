"""Bodies of 64 KiB and more: received straight into shared memory, byte for byte, and let go."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from stoker.frontend.limits import Limits
from stoker.wire.arena import MIN_BODY_BYTES
from stoker.wire.arena_folder import arena_folder
from stoker.wire.arena_layout import Descriptor
from stoker.wire.arena_reader import ArenaReader

KIB = 1 << 10
MIB = 1 << 20
FORM = "application/x-www-form-urlencoded"


def pattern(seed: int, length: int) -> bytes:
    """A body that no other test request has."""
    word = hashlib.sha256(seed.to_bytes(8, "big")).digest()
    return (word * (length // 32 + 1))[:length]


def head(length: int, *lines: str, target: str = "/predictions/digest") -> bytes:
    fields = [f"POST {target} HTTP/1.1", "Host: test", f"Content-Length: {length}", *lines]
    return "\r\n".join(fields).encode() + b"\r\n\r\n"


def told(body: bytes, way: str) -> bytes:
    return f"{way} {hashlib.sha256(body).hexdigest()}".encode()


@pytest.fixture
def digest(supervisor, make_settings):
    """A model that says which way each body came, and its hash."""
    reader = ArenaReader(arena_folder(make_settings().runtime_dir))

    def answer(job):
        body = job.payload.parameters[-1].body
        way = "inline"
        if isinstance(body, Descriptor):
            way, body = "arena", reader.read(job.job.job_id[:8], body)
        return [job.final(told(bytes(body), way))]

    supervisor.models["digest"] = answer
    yield "digest"
    reader.close()


@pytest.fixture
def is_empty(frontend):
    """Nothing is held any more: neither shared memory nor budget."""

    def look():
        return frontend.frontend._arena.is_unused and frontend.frontend._budget.taken_bytes == 0

    return look


@pytest.mark.parametrize("length", [MIN_BODY_BYTES, 255 * KIB, MIB + 7, 6 * MIB])
def test_a_large_body_arrives_whole_and_its_room_is_given_back(
    frontend, digest, is_empty, until, length
):
    """
    Head and body in one piece, as most clients send them.
    """
    body = pattern(length, length)

    answer = frontend.request("inference", "POST", "/predictions/digest", body)

    assert answer.body == told(body, "arena")
    until(is_empty, "the slot is free")


def test_a_body_below_the_crossover_stays_inline(frontend, digest):
    """
    A descriptor would cost more than the bytes.
    """
    body = pattern(1, MIN_BODY_BYTES - 1)

    assert frontend.request("inference", "POST", "/predictions/digest", body).body == told(
        body, "inline"
    )


@pytest.mark.parametrize("cut", [1, 30, -1, 20_000, 100_000])
def test_where_the_packets_end_makes_no_difference(frontend, digest, cut):
    """
    The head is found in the first piece, or it is not; both read the same.
    """
    client = frontend.client()
    body = pattern(2, 300 * KIB)
    start = head(len(body))
    sent = start + body
    at = len(start) + cut if cut < 100 else cut

    for piece in (sent[:at], sent[at : at + 70_000], sent[at + 70_000 :]):
        client.send(piece)

    assert client.read().body == told(body, "arena")


def test_connections_stay_usable_between_large_and_small_bodies(frontend, digest, until, is_empty):
    """
    The parser steps aside for a large body and must be back for the next request.
    """
    client = frontend.client()

    for turn in range(20):
        body = pattern(turn, (100 if turn % 3 else 200 * KIB) + turn)
        answer = client.request("POST", "/predictions/digest", body)
        assert answer.body == told(body, "inline" if turn % 3 else "arena")

    until(is_empty, "the slots are free")


@pytest.mark.parametrize("piece", [10_000, 65_536, 1_000_000])
def test_pipelined_large_bodies_are_answered_in_order(frontend, digest, until, is_empty, piece):
    """
    The end of a body and the next head share a packet, and reading is paused in between.
    """
    client = frontend.client()
    bodies = [pattern(seed, 100 * KIB + 11 * seed) for seed in range(6)]
    sent = b"".join(head(len(body)) + body for body in bodies)

    for at in range(0, len(sent), piece):
        client.send(sent[at : at + piece])

    assert [client.read().body for _ in bodies] == [told(body, "arena") for body in bodies]
    until(is_empty, "the slots are free")


def test_expect_continue_works_for_a_body_in_the_arena(frontend, digest):
    """
    curl asks before it sends a megabyte.
    """
    client = frontend.client()
    body = pattern(3, MIB)

    client.send(head(len(body), "Expect: 100-continue"))
    assert client.read().status == 100
    client.send(body)

    assert client.read().body == told(body, "arena")


def test_chunked_bodies_and_forms_stay_inline(frontend, digest, supervisor):
    """
    The one has no length, the other is taken apart here.
    """
    client = frontend.client()
    body = pattern(4, 200 * KIB)
    client.send(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
    client.send(b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
    assert client.read().body == told(body, "inline")

    value = b"v" * (200 * KIB)
    answer = client.request("POST", "/predictions/digest", b"a=" + value, (("Content-Type", FORM),))

    assert answer.body == told(value, "inline")
    assert supervisor.jobs[-1].payload.parameters[-1].name == "a"


def test_requests_that_go_through_the_framework_use_the_arena_too(frontend, digest):
    """
    A percent-escape leaves the short way.
    """
    client = frontend.client()
    body = pattern(5, 300 * KIB)

    client.send(head(len(body), target="/predictions/dig%65st") + body)

    assert client.read().body == told(body, "arena")


def test_other_routes_on_the_same_listener_still_get_their_bodies(frontend, until, is_empty):
    """
    A large body for nobody is read, refused and let go.
    """
    answer = frontend.request("inference", "POST", "/nowhere", pattern(6, MIB))

    assert answer.status == 404
    until(is_empty, "the slot is free")


def test_a_client_that_leaves_in_the_middle_frees_the_slot(frontend, digest, until, is_empty):
    """
    Its body will never be whole, and nothing is sent to a worker.
    """
    client = frontend.client()
    client.send(head(MIB) + b"x" * 200_000)
    until(lambda: not is_empty(), "the slot is taken")

    client.close()

    until(is_empty, "the slot is free")


def test_a_client_that_leaves_while_its_model_works_frees_the_slot(
    frontend, supervisor, until, is_empty
):
    """
    The worker may still read; the generation tells it.
    """
    supervisor.models["slow"] = lambda job: []
    client = frontend.client()
    client.send(head(MIB, target="/predictions/slow") + b"x" * MIB)
    until(lambda: supervisor.jobs, "the job is submitted")
    assert not is_empty()

    client.close()

    until(lambda: supervisor.cancelled, "the job is cancelled")
    until(is_empty, "the slot is free")


def test_a_refused_job_frees_the_slot_and_keeps_no_connection_busy(frontend, until, is_empty):
    """
    404 for the model, after the body was received.
    """
    answer = frontend.request("inference", "POST", "/predictions/unknown", pattern(7, MIB))

    assert answer.status == 404
    until(is_empty, "the slot is free")


def test_a_slow_body_is_refused_and_frees_the_slot(start_frontend, digest, until):
    """
    408 while the transport is writing into the slot: what still comes goes nowhere.
    """
    limits = Limits(body_timeout_s=0.05, body_rate_bytes=1 << 30, sweep_interval_s=0.02)
    slow = start_frontend(limits)
    client = slow.client()

    client.send(head(MIB) + b"x" * 100_000)
    answer = client.read()
    client.send(b"x" * 100_000)

    assert answer.status == 408
    until(lambda: slow.frontend._arena.is_unused, "the slot is free")


def test_a_streamed_answer_holds_the_slot_until_its_end(frontend, supervisor, until, is_empty):
    """
    A worker may be given the job again as long as somebody waits.
    """
    supervisor.models["stream"] = lambda job: [job.chunk(b"first")]
    client = frontend.client()
    client.send(head(MIB, target="/predictions/stream") + b"x" * MIB)
    client.read_until(b"\r\n\r\n")
    assert client.read_chunk() == b"first"
    assert not is_empty()

    supervisor.send_later(supervisor.jobs[-1].final(b"last"))

    assert client.read_chunk() == b"last"
    until(is_empty, "the slot is free")


def test_without_an_arena_everything_travels_inline(start_frontend, digest):
    """
    arena_max_bytes=0 is the off switch.
    """
    frontend = start_frontend(arena_max_bytes=0)
    body = pattern(8, 2 * MIB)

    answer = frontend.request("inference", "POST", "/predictions/digest", body)

    assert answer.body == told(body, "inline")


def test_a_full_arena_falls_back_to_inline_and_recovers(start_frontend, digest, supervisor, until):
    """
    One slow job may hold it; others must not wait for it.
    """
    frontend = start_frontend(arena_max_bytes=MIB)
    supervisor.models["slow"] = lambda job: []
    body = pattern(9, 600 * KIB)
    holder = frontend.client()
    holder.send(head(len(body), target="/predictions/slow") + body)
    until(lambda: supervisor.jobs, "the arena is in use")

    first = frontend.request("inference", "POST", "/predictions/digest", body)
    supervisor.send_later(supervisor.jobs[0].final(b""))
    holder.read()
    second = frontend.request("inference", "POST", "/predictions/digest", body)

    assert (first.body, second.body) == (told(body, "inline"), told(body, "arena"))


def test_a_frontend_that_stops_leaves_no_shared_memory(start_frontend, digest, make_settings):
    """
    A clean end removes its own files; nobody has to come after it.
    """
    frontend = start_frontend()
    frontend.request("inference", "POST", "/predictions/digest", pattern(10, MIB))
    prefix = frontend.frontend.link.frontend_id.hex()
    folder: Path = arena_folder(make_settings().runtime_dir)
    assert list(folder.glob(f"{prefix}-*"))

    frontend.ask_to_stop()
    frontend.wait_stopped()

    assert not list(folder.glob(f"{prefix}-*"))
