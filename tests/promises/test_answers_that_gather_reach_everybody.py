"""A short handler with a deep queue: its answers are looked at several at a time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fates import ask, deaths, noted, pids

pytestmark = pytest.mark.slow

CLIENTS = 24
#: Requests of each, one after the other; as long as this and the note of it take, nearly all.
REQUESTS = 80
SHORT = "nap 0.0008"
#: At which of one client's something else happens.
MIDDLE = 60
LONG = "nap 2"


def ask_all(server, model, special: Callable[[], str]) -> dict[str, float]:
    """When each of the texts was answered; `special` gives one of them its beginning."""

    def ask_some(client: int) -> Iterator[tuple[str, float]]:
        for number in range(REQUESTS):
            fate = special() if (client, number) == (0, MIDDLE) else SHORT
            text = f"{fate} {client} {number}"
            answer = ask(server, model, text)
            assert (answer.status, answer.text) == (200, text)
            yield text, time.monotonic()

    with ThreadPoolExecutor(CLIENTS) as clients:
        lists = clients.map(lambda client: list(ask_some(client)), range(CLIENTS))
        return dict(pair for each in lists for pair in each)


def test_who_came_before_a_slow_request_does_not_wait_for_it(server, model):
    """
    Their answers are ready: what lies in a socket is looked at in time, whatever the
    handler does meanwhile.
    """
    server.register(model, "fates:handle")

    answered = ask_all(server, model, lambda: LONG)

    began = noted(server, model)
    at = next(at for at, text in enumerate(began) if text.startswith(LONG))
    assert len(began) == len(set(began)) == len(answered) == CLIENTS * REQUESTS
    before_s = answered[began[at]] - max(answered[text] for text in began[:at])
    assert before_s > 1.0, "of the two seconds that the slow one took"


def test_a_worker_that_dies_while_its_answers_gather_did_nothing_in_vain(server, model):
    """
    What it had answered is in the socket: only the one in its hand is tried again.
    """
    server.register(model, "fates:handle")

    def kill() -> str:
        os.kill(pids(server, model)[0], signal.SIGKILL)
        return SHORT

    answered = ask_all(server, model, kill)

    began = noted(server, model)
    assert deaths(server, model) == 1
    assert len(answered) == len(set(began)) == CLIENTS * REQUESTS
    assert len(began) <= len(answered) + 1
