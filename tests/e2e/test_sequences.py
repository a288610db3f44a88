"""Sequences, as their clients see them: a handler that adds up, and everything that may happen."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from facts import wait_until as wait

pytestmark = pytest.mark.slow

CONFIG = """
minWorkers: {workers}
maxWorkers: {workers}
batchSize: 4
maxBatchDelay: 5
sequenceBatching: true
sequenceMaxIdleMSec: {idle_ms}
maxNumSequence: {sequences}
maxSequenceJobQueueSize: 2
"""
NAME = "ts_request_sequence_id"
START = {"ts_request_sequence_start": "true"}
END = {"ts_request_sequence_end": "true"}
REJECTED = (
    'Model "{model}" has no worker to serve inference request. Please use scale workers API to '
    "add workers. If this is a sequence inference, please check if it is closed, or expired; "
    "or exceeds maxSequenceJobQueueSize"
)


@pytest.fixture(scope="module")
def model_store(tmp_path_factory: pytest.TempPathFactory, pack_model) -> Path:
    store = tmp_path_factory.mktemp("sequences")
    for model, workers, idle_ms, sequences in (
        ("sums", 2, 60_000, 32),
        ("alone", 1, 60_000, 4),
        ("brief", 1, 300, 4),
    ):
        config = CONFIG.format(workers=workers, idle_ms=idle_ms, sequences=sequences)
        pack_model(model, "sums.py", config=config).rename(store / f"{model}.mar")
    config = CONFIG.format(workers=1, idle_ms=60_000, sequences=4) + "continuousBatching: true\n"
    pack_model("steps", "steps.py", config=config).rename(store / "steps.mar")
    return store


class Client:
    """Speaks for one sequence; its headers have underscores, which others' helpers lose."""

    def __init__(self, server: Any, model: str = "sums", name: str | None = None) -> None:
        where = urlsplit(server.addresses["inference"])
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        self._path = f"/predictions/{model}"
        self.name = name
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, more: dict[str, str] | None = None, **asked: Any) -> tuple[int, Any]:
        status, text = self.ask_text(more, **asked)
        return status, json.loads(text)

    def ask_text(self, more: dict[str, str] | None = None, **asked: Any) -> tuple[int, str]:
        headers = {NAME: self.name} if self.name else {}
        self._connection.request("POST", self._path, json.dumps(asked), {**headers, **(more or {})})
        response = self._connection.getresponse()
        self.headers = dict(response.getheaders())
        return response.status, response.read().decode()

    def add(self, number: int = 1, more: dict[str, str] | None = None, **asked: Any) -> Any:
        status, answer = self.ask(more, add=number, **asked)
        assert status == 200, answer
        return answer


@pytest.fixture
def client(server):
    """A client of a model that has been registered."""
    with contextlib.ExitStack() as clients:

        def open_client(model: str = "sums", name: str | None = None, of: Any = None) -> Client:
            return clients.enter_context(Client(of or server, model, name))

        yield open_client


def register(server, model: str = "sums") -> None:
    answer = server.manage("POST", "/models", url=f"{model}.mar", synchronous="true")
    assert answer.status == 200, answer.text


def open_sequences(server, model: str = "sums") -> list[int]:
    return [worker["openSequences"] for worker in server.workers(model)]


def queued(server) -> int:
    return int(server.describe("alone")["jobQueueStatus"]["pendingRequests"])


def assert_rejected(answer: tuple[int, Any], model: str, likely: str) -> None:
    status, document = answer
    assert (status, document["code"]) == (503, 503)
    assert document["type"] == "ServiceUnavailableException"
    assert document["message"] == REJECTED.format(model=model)
    assert likely in document["failure"]["likely"]


# -- names -------------------------------------------------------------------------------


@pytest.mark.parametrize("echoes", [True, False])
def test_a_client_without_a_name_gets_one_and_goes_on_with_it(server, client, echoes):
    """
    8.7: the handler sees it, with the start; the answer tells it, whatever the handler does.
    """
    register(server)
    one = client()

    first = one.add(5, echoes=echoes)
    one.name = one.headers[NAME]
    second = one.add(7)

    assert one.name.startswith("ts-seq-")
    assert (first["sum"], first["start"]) == (5, "true")
    assert (second["sum"], second["start"]) == (12, None)
    assert second["pid"] == first["pid"]


def test_sequences_do_not_see_each_other(server, client):
    """
    In one process or in two.
    """
    register(server)
    clients = [client(name=f"s{number}") for number in range(4)]

    for each in clients:
        each.add(3)
    answers = [each.add(number) for number, each in enumerate(clients)]

    assert [answer["sum"] for answer in answers] == [3, 4, 5, 6]
    assert open_sequences(server) == [2, 2]


def test_the_headers_may_be_called_otherwise(start_server, client):
    """
    ts_header_key_sequence_*: handlers learn the names too, which they did not in the peer (7.3).
    """
    server = start_server(
        *("--ts-header-key-sequence-id", "X-Session"),
        *("--ts-header-key-sequence-start", "X-Begin"),
    )
    register(server)
    one = client(of=server)

    first = one.add(1)
    name = one.headers["X-Session"]
    second = one.add(2, {"x-session": name})
    third = one.add(4, {"X-SESSION": name, "x-begin": "true"})

    assert [answer["sum"] for answer in (first, second, third)] == [1, 3, 4]


# -- order and batches -------------------------------------------------------------------


def test_requests_of_a_sequence_are_handled_in_order_one_at_a_time(server, client):
    """
    Sent at once over several connections; a batch has one of each sequence.
    """
    register(server, "alone")
    first, second, other = (client("alone", "x"), client("alone", "x"), client("alone", "y"))
    busy = server.later(first.add, 1, sleep=0.5)
    wait(lambda: open_sequences(server, "alone") == [1], "the first is at work")

    behind = server.later(second.add, 2)
    wait(lambda: queued(server) == 1, "the second waits")
    beside = server.later(other.add, 9)

    assert busy.answer()["order"] == [1]
    assert behind.answer()["order"] == [1, 2]
    assert beside.answer()["order"] == [9]


def test_sequences_of_requests_that_join_and_leave_a_running_batch(server, client):
    """
    Both at once (8.7): the next of a sequence joins when the last has left, others go on.
    """
    register(server, "steps")
    first, second, other = (client("steps", name) for name in "xxy")

    def ask(one: Client, count: int, **more: Any) -> list[str]:
        status, text = one.ask_text(count=count, **more)
        assert status == 200, text
        return text.split()

    long = server.later(ask, first, 40)
    wait(lambda: open_sequences(server, "steps") == [1], "the first is at work")
    beside = ask(other, 5)
    behind = ask(second, 3, ends=True)

    assert [piece.split("/")[0] for piece in beside] == ["1", "2", "3", "4", "5"]
    assert "2" in {piece.split("/")[1] for piece in beside}
    assert [int(piece.split("/")[0]) for piece in long.answer()] == list(range(1, 41))
    assert [piece.split("/")[0] for piece in behind] == ["41", "42", "43"]
    wait(lambda: open_sequences(server, "steps") == [1], "x has ended")
    assert server.describe("steps")["continuousBatching"] is True


# -- ends ----------------------------------------------------------------------------------


def test_an_idle_sequence_is_closed(server, client):
    """
    sequenceMaxIdleMSec; the server's own name for it is then refused, not taken for new.
    """
    register(server, "brief")
    one = client("brief")
    one.add()
    one.name = one.headers[NAME]

    wait(lambda: open_sequences(server, "brief") == [0], "the sequence is closed")

    assert_rejected(one.ask(add=1), "brief", "sequenceMaxIdleMSec")


@pytest.mark.parametrize(
    ("more", "asked"), [(END, {}), ({}, {"ends": True})], ids=["client", "handler"]
)
def test_the_end_of_a_sequence_frees_its_place(server, client, more, asked):
    """
    Said by the client's header or the handler's; until then no more may be open than may.
    """
    register(server, "alone")
    clients = [client("alone", f"s{number}") for number in range(4)]
    for each in clients:
        each.add()
    late = client("alone", "late")
    assert_rejected(late.ask(add=1), "alone", "maxNumSequence")

    clients[0].add(1, more, **asked)

    assert late.add()["sum"] == 1


def test_describe_and_metrics_tell_how_many_live_where(server, client):
    """
    An operator sees whether workers are used alike (3.6).
    """
    register(server)
    for number in range(3):
        client(name=f"s{number}").add()

    described = server.describe("sums")
    metrics = server.ask("metrics", "GET", "/metrics").text

    assert described["stateful"] is True
    assert described["sequenceMaxIdleMSec"] == 60_000
    assert described["sequenceTimeoutMSec"] == 0
    assert described["maxNumSequence"] == 32
    assert described["maxSequenceJobQueueSize"] == 2
    counts = {worker["id"]: worker["openSequences"] for worker in described["workers"]}
    assert sorted(counts.values()) == [1, 2]
    for worker, count in counts.items():
        line = f'stoker_sequences{{model="sums",version="1.0",worker="{worker}",}} {count}'
        assert line in metrics


# -- workers that go --------------------------------------------------------------------------


class Sum:
    """One sequence that adds ones as fast as it can and checks every answer.

    Attributes:
        losses: How often its state was lost, as it was told.
    """

    def __init__(self, client: Client, until: threading.Event) -> None:
        self.losses = 0
        self.answers = 0
        self.wrong: list[Any] = []
        self.pids: set[int] = set()
        self._client = client
        self._until = until
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        expected, pid = 0, None
        try:
            while not self._until.is_set():
                more = START if expected == 0 else {}
                status, answer = self._client.ask(more, add=1)
                if status != 200:
                    self.losses += 1
                    if status not in (500, 503, 507):
                        self.wrong.append(answer)
                    expected, pid = 0, None
                    continue
                expected += 1
                self.answers += 1
                self.pids.add(answer["pid"])
                is_elsewhere = pid is not None and pid != answer["pid"]
                if answer["sum"] != expected or is_elsewhere:
                    self.wrong.append((expected, pid, answer))
                pid = answer["pid"]
        except Exception as error:
            self.wrong.append(error)


def test_a_killed_worker_costs_its_own_sequences_and_they_are_told(start_server, client):
    """
    16 sequences, 2 workers, one is killed: no answer is ever from a worker without the state.
    """
    server = start_server()
    register(server)
    stop = threading.Event()
    sums = [Sum(client(name=f"s{n}", of=server), stop) for n in range(16)]
    try:
        wait(lambda: all(each.answers > 5 for each in sums), "all are at work")
        assert open_sequences(server) == [8, 8]
        killed = server.workers("sums")[0]["pid"]
        os.kill(killed, signal.SIGKILL)
        server.wait_logged("worker lost", worker_pid=killed)
        wait(lambda: sum(each.losses > 0 for each in sums) == 8, "eight are told")
        before = [each.answers for each in sums]
        wait(
            lambda: all(each.answers > old + 5 for each, old in zip(sums, before, strict=True)),
            "all go on",
        )
    finally:
        stop.set()
        for each in sums:
            each.join()

    assert [each.wrong for each in sums] == [[]] * 16
    told = [each for each in sums if each.losses]
    assert {pid for each in told for pid in each.pids} > {killed}
    assert not any(killed in each.pids for each in sums if not each.losses)


def test_a_lost_sequence_is_refused_until_it_starts_anew(start_server, client):
    """
    Never answered by a worker that knows nothing of it.
    """
    server = start_server()
    register(server)
    one = client(name="x", of=server)
    pid = one.add()["pid"]
    os.kill(pid, signal.SIGKILL)
    server.wait_logged("worker lost", worker_pid=pid)

    assert_rejected(one.ask(add=1), "sums", "worker is gone")
    assert_rejected(one.ask(add=1), "sums", "worker is gone")
    again = one.add(1, START)

    assert (again["sum"], one.add()["sum"]) == (1, 2)


def test_scale_down_waits_for_sequences(server, client):
    """
    The worker that leaves serves what lives in it to its end, and nothing new.
    """
    register(server)
    clients = {}
    for name in "ab":
        clients[name] = client(name=name)
        clients[name].pid = clients[name].add()["pid"]
    leaving = server.workers("sums")[-1]["pid"]
    (mine,) = [each for each in clients.values() if each.pid == leaving]

    answer = server.manage("PUT", "/models/sums", min_worker=1, timeout=60)
    assert answer.status == 202
    new = [client(name=f"n{number}").add()["pid"] for number in range(3)]
    answers = [mine.add() for _ in range(3)]
    assert leaving not in new
    assert [answer["pid"] for answer in answers] == [leaving] * 3
    mine.add(1, END)

    wait(lambda: len(server.workers("sums")) == 1, "the worker has left")


# -- supervisors that die ------------------------------------------------------------------------


def test_sequences_outlive_the_supervisor(start_server, client):
    """
    Their workers tell the successor what lives in them.
    """
    server = start_server()
    register(server)
    stop = threading.Event()
    sums = [Sum(client(name=f"s{n}", of=server), stop) for n in range(8)]
    try:
        wait(lambda: all(each.answers > 5 for each in sums), "all are at work")
        before = [each.answers for each in sums]
        server.supervisor.kill()
        server.wait_logged("worker adopted", count=2)
        wait(
            lambda: all(each.answers > old + 5 for each, old in zip(sums, before, strict=True)),
            "all go on",
        )
    finally:
        stop.set()
        for each in sums:
            each.join()

    assert [each.wrong for each in sums] == [[]] * 8
    assert [each.losses for each in sums] == [0] * 8
    assert open_sequences(server) == [4, 4]


def test_what_died_with_the_supervisor_is_not_taken_for_new(start_server, client):
    """
    Nobody is left who could say what lived in that worker.
    """
    server = start_server()
    register(server)
    clients = [client(name=name, of=server) for name in "xy"]
    pids = [each.add()["pid"] for each in clients]
    assert pids[0] != pids[1]

    supervisor = server.supervisor
    supervisor.suspend()
    os.kill(pids[0], signal.SIGKILL)
    supervisor.kill()
    server.wait_logged("worker adopted")

    assert_rejected(clients[0].ask(add=1), "sums", "worker is gone")
    assert clients[1].add()["sum"] == 2
    assert clients[0].add(1, START)["sum"] == 1
