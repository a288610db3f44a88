"""Promise 7: a server that is told to stop answers what it has, says so to the rest, and is gone.

Also a version that is replaced under load answers all that it was asked.
"""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

import pytest
from fates import ask_later, pending
from live_server import Server

pytestmark = pytest.mark.slow

CLIENTS = 8
SWAPS = 20


def tell_to_stop(server: Server) -> float:
    server.process.send_signal(signal.SIGTERM)
    return time.monotonic()


def take_refusal(server: Server):
    """Ask until the server says that it stops."""
    while True:
        answer = server.predict("any")
        if answer.status == 503:
            return answer


def test_what_is_in_hand_and_what_is_queued_is_answered_and_the_rest_told_when_to_come_again(
    start_server, model, until
):
    """
    One in hand, three queued behind it: 200 each, and the process is gone as soon as they are.
    Meanwhile predictions, management and probes read 503 with `Retry-After`.
    """
    server = start_server("--drain-timeout-s", "15")
    server.register(model, "fates:handle")
    gate = server.gate("held")
    asked = [ask_later(server, model, "gate held")]
    gate.wait_reached()
    for number in range(3):
        asked.append(ask_later(server, model, f"echo {number}"))
        until(lambda: pending(server, model) == len(asked) - 1, "it waits")

    tell_to_stop(server)
    refused = [take_refusal(server), server.ask("management", "GET", "/models")]
    assert not any(each.is_answered for each in asked)
    gate.let_go()
    opened_at = time.monotonic()

    assert [each.answer().status for each in asked] == [200] * 4
    assert server.process.wait(15) == 0
    assert time.monotonic() - opened_at < 3.0
    assert [each.status for each in refused] == [503] * 2
    assert [each.json["type"] for each in refused] == ["ServiceUnavailableException"] * 2
    assert [each.header("retry-after") for each in refused] == ["1"] * 2


def test_a_streamed_answer_comes_to_its_end(start_server):
    """
    Its first piece was out when the server was told to stop.
    """
    server = start_server("--drain-timeout-s", "15")
    server.register("streams", "streams:handle")
    gate = server.gate("step-1")
    with server.connect() as client:
        body = b'{"pieces": [["one", "step-1"], ["two", ""]], "last": "three"}'
        client.send(
            b"POST /predictions/streams HTTP/1.1\r\nHost: t\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = client.read_head()
        gate.wait_reached()

        tell_to_stop(server)
        take_refusal(server)
        gate.let_go()
        rest = client.read_rest()

    assert head.header("transfer-encoding") == "chunked"
    assert rest.endswith(b"3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")
    assert server.process.wait(15) == 0


def test_who_takes_too_long_is_not_waited_for(start_server, model):
    """
    `drain_timeout_s` bounds it, and a handler that never ends gets no more.
    """
    server = start_server("--drain-timeout-s", "1")
    server.register(model, "fates:handle")
    server.expect_error("not drained in time")
    gate = server.gate("held")
    held = ask_later(server, model, "gate held")
    gate.wait_reached()

    told_at = tell_to_stop(server)

    assert server.process.wait(15) == 0
    assert 1.0 <= time.monotonic() - told_at < 8.0
    with pytest.raises((OSError, http.client.HTTPException)):
        held.answer()
    gate.close()


class Swapped:
    """Clients of a model whose versions come and go; each keeps its connection."""

    def __init__(self, server: Server, model: str) -> None:
        self.statuses: Counter[tuple[int, bytes]] = Counter()
        self.failures: list[object] = []
        self._over = threading.Event()
        self._address = urlsplit(server.addresses["inference"])
        self._path = f"/predictions/{model}"
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        where = self._address
        try:
            connection = http.client.HTTPConnection(where.hostname or "", where.port, 20)
            while not self._over.is_set():
                connection.request("POST", self._path, b"nap 0.001")
                answer = connection.getresponse()
                self.statuses[answer.status, answer.read()[:200]] += 1
            connection.close()
        except BaseException as error:
            self.failures.append(error)

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_twenty_versions_replace_each_other_under_load_and_nobody_notices(server, model, until):
    """
    Register the next, make it the default, unregister the one before: whoever asks meanwhile is
    answered by one or the other.
    """
    versions = [f"{number}.0" for number in range(1, SWAPS + 2)]
    server.register(model, "fates:handle", model_version=versions[0])
    clients = Swapped(server, model)
    try:
        for old, new in itertools.pairwise(versions):
            before = clients.statuses.total()
            server.register(model, "fates:handle", model_version=new)
            chosen = server.manage("PUT", f"/models/{model}/{new}/set-default")
            assert chosen.status == 200, chosen.text
            gone = server.manage("DELETE", f"/models/{model}/{old}")
            assert gone.status == 200, gone.text
            until(lambda before=before: clients.statuses.total() > before, "they are answered")
    finally:
        clients.end()

    assert clients.failures == []
    assert {status for status, _ in clients.statuses} == {200}, clients.statuses
    assert server.describe(model)["modelVersion"] == versions[-1]


def test_under_load_every_client_has_a_whole_answer_or_a_word(start_server, model):
    """
    Clients that ask without a pause while the server stops: 200 or 503, until nobody listens.
    """
    server = start_server("--drain-timeout-s", "15")
    server.register(model, "fates:handle", workers=2)
    answers: Counter[int] = Counter()
    ends: Counter[str] = Counter()
    lost: list[BaseException] = []
    held = server.gate("held")
    in_hand = ask_later(server, model, "gate held")
    held.wait_reached()

    def client() -> None:
        while True:
            try:
                answer = server.predict(model, "nap 0.001")
            except ConnectionError as error:
                # Nobody listens any more, or the queue of the kernel went with the listener.
                ends[type(error).__name__] += 1
                return
            except BaseException as error:
                lost.append(error)
                return
            answers[answer.status] += 1

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for each in clients:
        each.start()
    tell_to_stop(server)
    take_refusal(server)
    held.let_go()
    for each in clients:
        each.join()

    assert lost == []
    assert set(answers) == {200, 503}
    assert in_hand.answer().status == 200
    assert server.process.wait(15) == 0
    assert os.path.exists(server.log_dir)
