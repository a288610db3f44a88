"""What a client meets when there is no room for its request: docs/performance.md, overload."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from stoker.errors import QueueFull
from stoker.frontend.body_reader import MAX_SKIPPED_BYTES
from stoker.frontend.limits import Limits
from stoker.wire.frames import FullQueue

MIB = 1 << 20
#: Long enough that no lane looks again while a test runs.
SLOW = {"place_every_s": 60.0, "retry_after_s": 9}


def post(length: int, *lines: str, target: str = "/predictions/busy") -> bytes:
    head = [f"POST {target} HTTP/1.1", "Host: t", f"Content-Length: {length}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed lane looks again when its test is long over."""
    monkeypatch.setattr("stoker.frontend.lanes.MAX_MOMENT_S", 60.0)


@pytest.fixture
def busy(frontend: Any, supervisor: Any, patient: None) -> Any:
    """A frontend that knows: the queue of `busy` is full."""

    def refuse(job: Any) -> list[Any]:
        raise QueueFull("full", model="busy", version=None, capacity=1, **SLOW)

    supervisor.models["busy"] = refuse
    assert frontend.request("inference", "POST", "/predictions/busy").status == 503
    supervisor.jobs.clear()
    return frontend


def test_refused_client_is_told_when_to_come_again_and_keeps_its_connection(frontend, supervisor):
    """
    Its request was fine; a new connection would cost both sides more than the answer.
    """

    def refuse(job: Any) -> list[Any]:
        raise QueueFull("full", model="m", version=None, capacity=1, **SLOW)

    supervisor.models["m"] = refuse
    client = frontend.client()

    refused = client.request("POST", "/predictions/m", b"b")

    assert (refused.status, refused.header("retry-after")) == (503, "9")
    assert refused.header("connection") == "keep-alive"
    assert client.request("POST", "/predictions/nobody", b"b").status == 404


def test_who_knows_does_not_ask(busy, supervisor):
    """
    A refusal that travels to the supervisor and back costs ten times as much,
    and costs it those who could be served.
    """
    client = busy.client()

    answers = [client.request("POST", "/predictions/busy", b"b") for _ in range(3)]

    assert [answer.status for answer in answers] == [503] * 3
    assert {answer.header("retry-after") for answer in answers} == {"9"}
    assert len({answer.header("x-request-id") for answer in answers}) == 3
    assert not supervisor.jobs


def test_both_refusals_read_the_same(frontend, supervisor, patient):
    """
    Which process noticed is nobody's business.
    """

    def refuse(job: Any) -> list[Any]:
        raise QueueFull("full", model="m", version=None, capacity=1, **SLOW)

    supervisor.models["m"] = refuse
    client = frontend.client()

    told, known = (client.request("POST", "/predictions/m", b"b") for _ in range(2))

    assert len(supervisor.jobs) == 1
    assert (told.status_line, told.body) == (known.status_line, known.body)
    assert [pair for pair in told.headers if pair[0] != "x-request-id"] == [
        pair for pair in known.headers if pair[0] != "x-request-id"
    ]


def test_announcement_is_enough(frontend, supervisor, echo, patient, until):
    """
    The first upload to a full queue is refused before its body, too.
    """
    lanes = frontend.frontend._lanes
    supervisor.announce_full(FullQueue(echo, "1.0", True, 60.0, 4))
    until(lambda: (echo, None) in lanes.closed, "the frontend has heard")

    default = frontend.request("inference", "POST", f"/predictions/{echo}", b"b")
    named = frontend.request("inference", "POST", f"/predictions/{echo}/1.0", b"b")
    other = frontend.request("inference", "POST", f"/predictions/{echo}/2.0", b"b")

    assert (default.status, named.status, other.status) == (503, 503, 200)
    assert default.header("retry-after") == "4"


def test_large_upload_is_refused_before_its_body(start_frontend, supervisor, patient):
    """
    The client learns it from a few bytes instead of a hundred million.
    """
    running = start_frontend(max_request_size=128 * MIB)
    lanes = running.frontend._lanes
    lanes.close_full(FullQueue("busy", "1.0", True, 60.0, 1))
    client = running.client()

    client.send(post(100 * MIB))
    answer = client.read()

    assert (answer.status, answer.header("retry-after")) == (503, "1")
    assert answer.is_closed
    assert running.frontend._budget.taken_bytes == 0


def test_client_that_sends_everything_first_reads_the_refusal(start_frontend, supervisor, patient):
    """
    Most clients look for an answer only when they have sent all.
    """
    running = start_frontend(max_request_size=128 * MIB)
    running.frontend._lanes.close_full(FullQueue("busy", "1.0", True, 60.0, 1))
    client = running.client()

    client.send(post(20 * MIB))
    for _ in range(20):
        client.send(b"x" * MIB)

    assert client.read().status == 503


def test_client_that_expects_to_continue_is_refused_instead(busy):
    """
    It asked in order to be told now.
    """
    client = busy.client()
    client.send(post(10, "Expect: 100-continue"))

    answer = client.read()

    assert (answer.status, answer.is_closed) == (503, True)


def test_rest_of_a_short_refused_request_is_skipped(busy, echo):
    """
    The next request on the connection is read where it begins.
    """
    client = busy.client()
    client.send(post(5) + b"he")
    assert client.read().status == 503

    client.send(b"llo" + post(3, target=f"/predictions/{echo}") + b"abc")

    assert client.read().body == b"abc"


def test_chunked_body_of_a_refused_request_is_skipped_up_to_a_bound(busy, echo):
    """
    Nobody knows how much more would come.
    """
    head = b"POST /predictions/busy HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    short, endless = busy.client(), busy.client()
    short.send(head + b"3\r\nabc\r\n0\r\n\r\n")
    endless.send(head)
    assert (short.read().status, endless.read().status) == (503, 503)

    assert short.request("POST", f"/predictions/{echo}", b"b").body == b"b"
    endless.send(b"%x\r\n" % (MAX_SKIPPED_BYTES + 1) + b"x" * (MAX_SKIPPED_BYTES + 1))
    assert endless.read_rest() == b""


@pytest.mark.parametrize(
    "request_bytes",
    [post(1, "Connection: close") + b"x", post(1).replace(b"1.1", b"1.0") + b"x"],
    ids=["close", "http 1.0"],
)
def test_client_that_wants_the_connection_closed_gets_that(busy, request_bytes):
    """
    What it asked for counts, refused or not.
    """
    client = busy.client()
    client.send(request_bytes)

    answer = client.read()

    assert (answer.status, answer.header("connection"), answer.is_closed) == (503, "close", True)


def test_refusal_of_a_head_request_has_no_body(busy, echo):
    """
    Its client would take a body for the next answer.
    """
    client = busy.client()

    refused = client.request("HEAD", "/predictions/busy")

    assert (refused.status, refused.body) == (503, b"")
    assert client.request("POST", f"/predictions/{echo}", b"b").body == b"b"


def test_refusals_keep_their_place_behind_answers(busy, supervisor, until):
    """
    A client that pipelines knows its answers by their order.
    """
    supervisor.models["slow"] = lambda job: []
    client = busy.client()
    client.send(post(1, target="/predictions/slow") + b"1" + post(1) + b"2")
    job = until(lambda: supervisor.jobs and supervisor.jobs[0], "the first has come")

    supervisor.send_later(job.final(b"first"))

    assert client.read().body == b"first"
    assert client.read().status == 503


def test_flood_of_requests_in_one_piece_is_cut_short(busy):
    """
    Others wait while one client's requests are refused.
    """
    client = busy.client()
    client.send((post(1) + b"x") * 1000)

    answers = [client.read() for _ in range(Limits().pipelined_requests + 1)]

    assert {answer.status for answer in answers} == {503}
    assert [answer.is_closed for answer in answers[-2:]] == [False, True]


def test_other_models_and_routes_do_not_notice(busy, echo, supervisor):
    """
    A queue is one model's.
    """
    supervisor.verbs["health"] = lambda arguments: {"is_healthy": True}

    assert busy.request("inference", "POST", f"/predictions/{echo}", b"b").status == 200
    assert busy.request("inference", "GET", "/ping").status == 200


def test_client_that_takes_no_answers_is_not_asked_for_more(busy, until):
    """
    Answers that nobody takes would fill our memory.
    """
    where = busy.ports["inference"]
    site = busy.frontend.sites[0]
    others = {*site.connections}
    with socket.create_connection(where) as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.setblocking(False)
        sent = 0
        while sent < 50 * MIB:
            try:
                sent += greedy.send((post(1) + b"x") * 16)
            except BlockingIOError:
                break
        (connection,) = site.connections - others
        assert connection.transport.get_write_buffer_size() < MIB
    until(lambda: connection not in site.connections, "it is gone")


def test_bodies_of_one_model_leave_room_for_another(start_frontend, supervisor, echo, until):
    """
    Large uploads to a hot model must not keep everybody else out.
    """
    running = start_frontend(max_request_size=MIB, max_body_memory_bytes=2 * MIB, arena_max_bytes=0)
    budget = running.frontend._budget
    supervisor.models["hot"] = lambda job: []
    hot = [running.client() for _ in range(8)]
    for client in hot:
        client.send(post(MIB // 4, target="/predictions/hot") + b"x" * (MIB // 4))
    until(lambda: len(supervisor.jobs) == 7, "the model has its share")

    other = running.request("inference", "POST", f"/predictions/{echo}", b"x" * (MIB // 4))

    assert other.status == 200
    assert budget.taken_bytes == 7 * MIB // 4
    for client in hot:
        client.close()
    until(lambda: budget.taken_bytes == 0, "all room is free again")


def test_body_that_can_never_fit_is_a_413(start_frontend, echo):
    """
    Coming again would not help.
    """
    running = start_frontend(max_request_size=2 * MIB, max_body_memory_bytes=MIB)
    client = running.client()
    client.send(post(MIB + 1, target=f"/predictions/{echo}"))

    assert client.read().status == 413
