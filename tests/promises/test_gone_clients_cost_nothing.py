"""Promise 6: what nobody waits for any more is not worked on, wherever it is."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from fates import ask, ask_later, deaths, noted, packer, pending, pids

pytestmark = pytest.mark.slow


@pytest.fixture
def pack_fates(model_store: Path, tmp_path: Path):
    return packer(model_store, tmp_path)


def request(model: str, text: str) -> bytes:
    head = f"POST /predictions/{model} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(text)}\r\n\r\n"
    return (head + text).encode()


def hold(server, model):
    gate = server.gate("held")
    in_hand = ask_later(server, model, "gate held")
    gate.wait_reached()
    return gate, in_hand


# -- clients that leave ------------------------------------------------------------------


def test_clients_that_left_are_not_served(server, model, until):
    """
    Sixty of them wait behind a busy worker and leave; it sees none of their requests.
    """
    server.register(model, "fates:handle")
    gate, in_hand = hold(server, model)
    with contextlib.ExitStack() as stay:
        for number in range(60):
            connection = stay.enter_context(server.connect())
            connection.send(request(model, f"echo {number}"))
        until(lambda: pending(server, model) == 60, "they wait, one of them sent ahead")

    until(lambda: pending(server, model) == 0, "they count no more")
    gate.let_go()

    assert in_hand.answer().status == 200
    assert ask(server, model, "echo last").text == "echo last"
    assert noted(server, model) == ["gate held", "echo last"]


def test_a_running_handler_is_told_that_its_client_left(server, model, until):
    """
    It stops by itself and its worker takes the next request.
    """
    server.register(model, "fates:handle")
    (worker,) = pids(server, model)
    with server.connect() as connection:
        connection.send(request(model, "heed"))
        until(lambda: noted(server, model) == ["heed"], "it is in hand")
        assert noted(server, model, "cancelled") == []

    until(lambda: noted(server, model, "cancelled") == ["heed"], "the handler stops")

    assert ask(server, model, "pid").text == str(worker)


def test_a_batch_goes_on_while_one_of_its_clients_is_there(server, model, until):
    """
    `cancelled` is about all of them.
    """
    server.register(model, "fates:handle", batch_size=2, max_batch_delay=5000)
    gate = server.gate("both")
    stays = ask_later(server, model, "gate both")
    with server.connect() as connection:
        connection.send(request(model, "echo gone"))
        gate.wait_reached()
    until(lambda: server.describe(model)["jobQueueStatus"]["pendingRequests"] == 0, "it left")
    gate.let_go()

    assert stays.answer().status == 200
    assert noted(server, model, "cancelled") == []


# -- handlers that take too long --------------------------------------------------------------


def test_a_handler_that_stops_in_time_keeps_its_worker(server, model, until):
    """
    First `cancelled`, then signals: a model of gigabytes is not loaded again for one request.
    """
    server.register(model, "fates:handle", response_timeout=1)
    (worker,) = pids(server, model)

    answer = ask(server, model, "heed")

    assert (answer.status, answer.json["message"]) == (500, "Worker died.")
    assert answer.json["failure"]["likely"] == "no answer within response_timeout"
    until(lambda: noted(server, model, "cancelled") == ["heed"], "the handler stops")
    assert ask(server, model, "pid").text == str(worker)
    assert deaths(server, model) == 0
    assert server.logged("handler is silent and told to stop", model=model)


def test_a_handler_that_hears_nothing_is_killed(server, model, until):
    """
    Not even SIGABRT: SIGKILL is not asked.
    """
    server.register(model, "fates:handle", response_timeout=1)
    (worker,) = pids(server, model)
    started = time.monotonic()

    answer = ask(server, model, "deaf")
    told_after_s = time.monotonic() - started
    (line,) = until(lambda: server.logged("worker lost", model=model), "it is gone")

    assert answer.status == 500
    assert told_after_s < 2.0, "its client does not wait for the signals"
    assert (line["worker_pid"], line["exit"]) == (worker, "SIGKILL")
    assert line["likely"] == "no answer within response_timeout"
    assert ask(server, model, "echo next").status == 200


# -- deadlines --------------------------------------------------------------------------------


def test_time_in_the_queue_counts(server, model):
    """
    Also for one that was sent ahead to the busy worker: it is told in time and never begun.
    """
    server.register(model, "fates:handle")
    gate, in_hand = hold(server, model)
    started = time.monotonic()

    late = [
        ask_later(server, model, f"echo {number}", x_request_timeout_ms="300")
        for number in range(4)
    ]
    statuses = [each.answer().status for each in late]
    took_s = time.monotonic() - started
    assert pending(server, model) == 0
    gate.let_go()

    assert statuses == [408] * 4
    assert took_s < 1.5
    assert in_hand.answer().status == 200
    assert ask(server, model, "echo last").status == 200
    assert noted(server, model) == ["gate held", "echo last"]


def test_the_handler_knows_by_when_its_client_wants_the_answer(server, model, until):
    """
    Time in the queue has been taken off.
    """
    server.register(model, "fates:handle", response_timeout=100)
    gate, in_hand = hold(server, model)
    started = time.monotonic()
    waits = ask_later(server, model, "left", x_request_timeout_ms="20000")
    until(lambda: time.monotonic() - started > 0.5, "so much less is left")
    gate.let_go()

    assert waits.answer().status == 200
    assert in_hand.answer().status == 200
    assert ask(server, model, "left").status == 200
    own, workers = [float(text) for text in noted(server, model, "left")]
    assert 10.0 < own < 19.9
    assert 95.0 < workers <= 100.0, "without one, its worker's time is the limit"


def test_a_handler_is_told_that_the_deadline_has_passed(server, model, until):
    """
    The client has its 408; nobody reads what the handler would still compute.
    """
    server.register(model, "fates:handle")
    (worker,) = pids(server, model)

    answer = ask(server, model, "heed", x_request_timeout_ms="300")

    assert answer.status == 408
    until(lambda: noted(server, model, "cancelled") == ["heed"], "the handler stops")
    assert ask(server, model, "pid").text == str(worker)


def test_a_models_own_limit_is_told_where_the_peer_is_silent(server, model, until, pack_fates):
    """
    clientTimeoutInMills counts from arrival, in the queue and in the hand.
    """
    url = pack_fates(model, clientTimeoutInMills=400)
    answer = server.manage("POST", "/models", url=url, initial_workers=1, synchronous="true")
    assert answer.status == 200, answer.text
    started = time.monotonic()

    in_hand, ahead, queued = (ask_later(server, model, "heed") for _ in range(3))
    statuses = [each.answer().status for each in (in_hand, ahead, queued)]

    assert statuses == [408] * 3
    assert time.monotonic() - started < 2.0
    until(lambda: noted(server, model, "cancelled") == ["heed"], "the first one stops")
    assert noted(server, model) == ["heed"], "the others were never begun"


def test_unregistering_answers_what_was_sent_ahead_at_once(server, model, until):
    """
    Its clients may ask somebody else; only the one in hand has to be waited for.
    """
    server.register(model, "fates:handle")
    gate, in_hand = hold(server, model)
    ahead, queued = ask_later(server, model, "echo 1"), ask_later(server, model, "echo 2")
    until(lambda: pending(server, model) == 2, "both wait")

    gone = server.later(server.manage, "DELETE", f"/models/{model}")

    assert [ahead.answer().status, queued.answer().status] == [503, 503]
    assert not in_hand.is_answered
    gate.let_go()
    assert in_hand.answer().status == 200
    assert gone.answer().status == 200
    assert noted(server, model) == ["gate held"]
