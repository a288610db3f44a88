"""Promise 3: a request that kills workers is found, told, and kept out; the rest are answered."""

from __future__ import annotations

import os
import signal
import time

import pytest
from fates import ask, ask_later, deaths, noted, pids

pytestmark = pytest.mark.slow


def ask_together(server, model, texts):
    """Eight requests that are handled as one batch."""
    asked = [ask_later(server, model, text) for text in texts]
    return [each.answer() for each in asked]


@pytest.mark.parametrize("workers", [1, 2])
def test_of_a_batch_of_eight_seven_are_answered(server, model, workers):
    """
    One typed error, with the signal, the cause and the attempts; two deaths, four were allowed.
    """
    server.register(model, "fates:handle", workers, batch_size=8, max_batch_delay=5000)
    texts = [f"echo {number}" for number in range(7)]
    started = time.monotonic()

    *innocent, killer = ask_together(server, model, [*texts, "die segv"])

    assert [answer.text for answer in innocent] == texts
    assert time.monotonic() - started < 4.0
    assert (killer.status, killer.json["message"]) == (500, "Worker died.")
    failure = killer.json["failure"]
    assert failure["exit"] == "SIGSEGV"
    assert failure["likely"] == "crash in native code"
    assert failure["attempts"] == 2
    assert "attempt 2 of 2" in failure["message"]
    assert killer.header("x-stoker-attempts") == "2"
    assert deaths(server, model) == 2
    assert len([text for text in noted(server, model) if text == "die segv"]) == 2


def test_of_a_batch_of_eight_only_the_one_that_hangs_is_told(server, model):
    """
    It is given one response_timeout with the others and one alone.
    """
    server.register(model, "fates:handle", batch_size=8, max_batch_delay=5000, response_timeout=1)
    texts = [f"echo {number}" for number in range(7)]

    *innocent, hanger = ask_together(server, model, [*texts, "hang"])

    assert [answer.text for answer in innocent] == texts
    assert (hanger.status, hanger.json["message"]) == (500, "Worker died.")
    assert hanger.json["failure"]["likely"] == "no answer within response_timeout"
    assert hanger.json["failure"]["attempts"] == 2


@pytest.mark.parametrize(
    ("way", "status", "exit", "likely"),
    [
        ("segv", 500, "SIGSEGV", "crash in native code"),
        ("abort", 500, "SIGABRT", "abort in native code"),
        ("exit", 500, "exit 3", "crash"),
        ("kill", 507, "SIGKILL", ("killed from outside", "out of memory")),
    ],
)
def test_every_way_to_die_has_its_words(server, model, way, status, exit, likely):
    """
    In the answer, in describe and in the log alike.
    """
    server.register(model, "fates:handle")

    answer = ask(server, model, f"die {way}")

    assert answer.status == status
    failure = answer.json["failure"]
    assert failure["exit"] == exit
    assert failure["likely"] in likely
    last = server.describe(model)["deaths"]["last"]
    assert (last["exit"], last["likely"]) == (exit, failure["likely"])
    (line, *_) = server.logged("worker lost", model=model, deaths=2)[-1:]
    assert (line["exit"], line["likely"]) == (exit, failure["likely"])


def test_the_same_poison_again_costs_no_worker(server, model):
    """
    Whoever sends it: refused at once, and describe says what is kept out and why.
    """
    server.register(model, "fates:handle")
    ask(server, model, "die segv")
    before = deaths(server, model)

    started = time.monotonic()
    refused = [ask(server, model, "die segv", x_request_id=f"r{i}") for i in range(5)]
    took_s = time.monotonic() - started

    assert [answer.status for answer in refused] == [500] * 5
    assert "not let in again" in refused[0].json["message"]
    assert refused[0].json["failure"]["deaths"] == 2
    assert took_s < 1.0
    assert deaths(server, model) == before == 2
    (entry,) = server.describe(model)["quarantine"]
    assert (entry["refused"], entry["deaths"]) == (5, 2)
    assert "SIGSEGV" in entry["likely"]
    (line,) = server.logged("request kills workers", model=model)
    assert line["content"] == entry["content"]
    assert ask(server, model, "echo other").text == "echo other"


def test_a_large_poison_is_known_again_too(server, model):
    """
    Its body lies in shared memory, where only its frontend and a worker look otherwise.
    """
    server.register(model, "fates:handle")
    large = "die segv " + "x" * (1 << 20)
    ask(server, model, large)

    refused, other = ask(server, model, large), ask(server, model, "echo " + large[5:])

    assert "not let in again" in refused.json["message"]
    assert other.status == 200
    assert deaths(server, model) == 2


def test_a_poison_that_waits_already_does_not_kill_again(server, model, until):
    """
    Clients that repeat themselves when it takes long.
    """
    server.register(model, "fates:handle")
    gate = server.gate("first")
    first = ask_later(server, model, "gate first")
    gate.wait_reached()
    repeated = [ask_later(server, model, "die segv") for _ in range(5)]
    until(
        lambda: server.describe(model)["jobQueueStatus"]["pendingRequests"] == 5, "all of them wait"
    )

    gate.let_go()

    assert first.answer().status == 200
    assert [each.answer().status for each in repeated] == [500] * 5
    # One of them may have been sent ahead to the worker that came back.
    assert deaths(server, model) <= 4


def test_an_operator_lets_it_in_again(server, model):
    """
    By scaling, or by registering anew: somebody has looked after it.
    """
    server.register(model, "fates:handle")
    ask(server, model, "die exit")

    server.manage("PUT", f"/models/{model}?min_worker=1&synchronous=true")
    again = ask(server, model, "die exit")

    assert again.json["message"] == "Worker died."
    assert deaths(server, model) == 4


def test_a_kill_from_outside_does_not_accuse_the_request(server, model, until):
    """
    An operator's kill -9 hits the same request twice; the next one like it is let in.
    """
    server.register(model, "fates:handle")
    server.gate("stuck")
    unlucky = ask_later(server, model, "gate stuck")
    for attempt in (1, 2):
        until(lambda n=attempt: noted(server, model).count("gate stuck") == n, "it is in hand")
        (victim,) = until(lambda: pids(server, model), "there is a worker")
        os.kill(victim, signal.SIGKILL)
        server.wait_logged("worker lost", count=attempt, model=model)
    assert unlucky.answer().status == 507

    described = server.describe(model)

    if described["deaths"]["last"]["likely"] == "killed from outside":
        assert "quarantine" not in described
    else:  # a kernel that does not count its own kills leaves no way to tell
        assert described["deaths"]["last"]["likely"] == "out of memory"
