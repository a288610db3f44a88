"""Promise 2: what a worker had in hand when it died is tried again; its client only waits."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter

import pytest
from fates import ask_later, noted, pending, pids

pytestmark = pytest.mark.slow

ATTEMPTS = "x-stoker-attempts"


def hold(server, model):
    """A request in the hand of the one worker."""
    gate = server.gate("held")
    in_hand = ask_later(server, model, "gate held")
    gate.wait_reached()
    return gate, in_hand


def test_only_the_request_in_hand_has_a_second_attempt_and_says_so(server, model, until):
    """
    The rest go to the next worker as if nothing had happened, in the order they came.
    """
    server.register(model, "fates:handle")
    gate, in_hand = hold(server, model)
    queued = []
    for number in range(6):
        queued.append(ask_later(server, model, f"echo {number}"))
        until(lambda: pending(server, model) == len(queued), "it waits")

    gate.stay_open()
    os.kill(pids(server, model)[0], signal.SIGKILL)
    answers = [each.answer() for each in (in_hand, *queued)]

    assert [answer.status for answer in answers] == [200] * 7
    assert [answer.header(ATTEMPTS) for answer in answers] == ["2"] + [None] * 6
    order = [f"echo {number}" for number in range(6)]
    assert noted(server, model) == ["gate held", "gate held", *order]


def test_a_batch_is_tried_again_in_time_order(server, model):
    """
    Each alone now, oldest first.
    """
    server.register(model, "fates:handle", batch_size=4, max_batch_delay=5000)
    gate = server.gate("held")
    asked = [ask_later(server, model, f"gate held {number}") for number in range(4)]
    gate.wait_reached()
    together = noted(server, model)
    assert len(together) == 4

    gate.stay_open()
    os.kill(pids(server, model)[0], signal.SIGKILL)

    assert [each.answer().status for each in asked] == [200] * 4
    assert noted(server, model)[4:] == together


def test_workers_die_under_load_and_nobody_is_told(start_server, model):
    """
    A worker is killed as soon as there is one, under 12 clients: every request has its own
    answer, once, and most of them at the first attempt.
    """
    server = start_server("--max-attempts", "8")
    server.register(model, "fates:handle", workers=2)
    rng = random.Random(4)
    over = time.monotonic() + 3.0
    statuses: Counter[int] = Counter()
    attempts: Counter[str] = Counter()

    def client(number: int) -> None:
        asked = 0
        while time.monotonic() < over:
            asked += 1
            text = f"nap 0.002 {number}.{asked}"
            answer = server.predict(model, text)
            assert answer.status == 200, answer.text
            assert answer.text == text
            statuses[answer.status] += 1
            attempts[answer.header(ATTEMPTS) or "1"] += 1

    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            client(number)
        except BaseException as error:
            failures.append(error)

    clients = [threading.Thread(target=guarded, args=(number,)) for number in range(12)]
    for each in clients:
        each.start()
    killed = 0
    while time.monotonic() < over:
        alive = pids(server, model)
        if alive:
            try:
                os.kill(rng.choice(alive), signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass
        clients[0].join(0.15)
    for each in clients:
        each.join()

    assert failures == []
    assert killed >= 5
    assert attempts["1"] > 0.8 * statuses[200]
    assert len(server.logged("worker lost")) >= 5


def test_what_may_not_be_done_twice_is_not_done_twice(start_server, model):
    """
    Without a second attempt some are told of a death; none is begun again.
    """
    server = start_server("--max-attempts", "1")
    server.register(model, "fates:handle", workers=2)
    rng = random.Random(5)
    over = time.monotonic() + 2.0
    answered: set[str] = set()
    told: list[int] = []

    def client(number: int) -> None:
        asked = 0
        while time.monotonic() < over:
            asked += 1
            text = f"nap 0.001 {number}.{asked}"
            answer = server.predict(model, text)
            if answer.status == 200:
                answered.add(text)
            else:
                told.append(answer.status)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for each in clients:
        each.start()
    while time.monotonic() < over:
        if alive := pids(server, model):
            try:
                os.kill(rng.choice(alive), signal.SIGKILL)
            except ProcessLookupError:
                pass
        clients[0].join(0.2)
    for each in clients:
        each.join()

    begun = Counter(noted(server, model))
    assert max(begun.values()) == 1
    assert answered <= begun.keys()
    assert set(told) <= {507, 503}
