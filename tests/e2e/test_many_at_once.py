"""Workers that work on many requests at once: continuousBatching, asyncCommunication (8.7, 8.8)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from facts import wait_until

from stoker.archives.pack import Parts, pack

pytestmark = pytest.mark.slow

HANDLERS = Path(__file__).parent / "handlers"
CONTINUOUS = "continuousBatching: true\nbatchSize: 4\nminWorkers: 1\nmaxWorkers: 1\n"
ASYNC = "asyncCommunication: true\nminWorkers: 1\nmaxWorkers: 1\n"
ENDLESS = 1_000_000


@pytest.fixture
def register(server: Any, model_store: Path, tmp_path: Path) -> Callable[..., None]:
    """Pack a handler with this model-config.yaml and register it."""

    def do(model: str, handler: str, config: str) -> None:
        file = tmp_path / "model-config.yaml"
        file.write_text(config)
        made = pack(Parts(model, str(HANDLERS / handler), config_file=file), tmp_path)
        made.rename(model_store / made.name)
        answer = server.manage("POST", "/models", url=made.name, synchronous="true")
        assert answer.status == 200, answer.text

    return do


def begin(server: Any, model: str, body: str) -> Any:
    """A connection on which the request is under way."""
    connection = server.connect()
    head = f"POST /predictions/{model} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.send((head + body).encode())
    return connection


def begin_stream(server: Any, model: str, body: str) -> Any:
    """The same, and the first piece has come."""
    connection = begin(server, model, body)
    head = connection.read_head()
    assert head.status == 200
    assert head.header("transfer-encoding") == "chunked"
    assert head.header("ts_stream_next") == "true"
    assert connection.read_chunk()
    return connection


def pid_of(server: Any, model: str) -> int:
    (worker,) = server.workers(model)
    return int(worker["pid"])


# -- continuous batching ------------------------------------------------------------------


def test_a_request_joins_what_runs_and_leaves_before_it(server, register):
    """
    Nobody waits for the end of somebody else's stream.
    """
    register("joins", "joins.py", CONTINUOUS)
    with begin_stream(server, "joins", f"long {ENDLESS}") as long:
        answer = server.predict("joins", "short 3")

        assert answer.status == 200
        pid = pid_of(server, "joins")
        assert answer.text == "".join(f"short{i} of 2 in {pid}\n" for i in (1, 2, 3))
        assert long.read_chunk().startswith(b"long")
    assert server.describe("joins")["continuousBatching"] is True


def test_a_client_that_leaves_makes_room(server, register):
    """
    The handler sees it at its next step, and who waits takes the place.
    """
    register("joins", "joins.py", CONTINUOUS)
    streams = [begin_stream(server, "joins", f"s{i} {ENDLESS}") for i in range(4)]
    waiting = server.later(server.predict, "joins", "waiting 1")
    queued = lambda: server.describe("joins")["jobQueueStatus"]["pendingRequests"]  # noqa: E731
    wait_until(lambda: queued() == 1, "it waits for a place")

    streams[0].close()

    assert waiting.answer().text.startswith("waiting1 of 4")
    wait_until(lambda: "forgot s0" in server.model_log("joins"), "the handler clears up")
    for stream in streams[1:]:
        assert stream.read_chunk()
        stream.close()


def test_a_worker_that_dies_breaks_off_streams_and_nothing_else(server, register):
    """
    What has begun to come cannot begin again; who has heard nothing is tried again.
    """
    register("joins", "joins.py", CONTINUOUS)
    with begin_stream(server, "joins", f"long {ENDLESS}") as long:
        silent = server.later(server.predict, "joins", "silent 400 late")
        wait_until(lambda: "joined silent" in server.model_log("joins"), "it runs")
        died = pid_of(server, "joins")

        os.kill(died, signal.SIGKILL)

        with pytest.raises(EOFError):
            list(long.read_chunks())
        answer = silent.answer()
    assert answer.status == 200
    assert answer.header("x-stoker-attempts") == "2"
    assert answer.text.startswith("silent400 of 1 in ")
    assert str(died) not in answer.text


def test_streams_end_before_their_worker_does(server, register):
    """
    Scaling down lets what runs finish.
    """
    register("joins", "joins.py", CONTINUOUS)
    with begin_stream(server, "joins", "long 60") as long:
        assert server.manage("PUT", "/models/joins", min_worker=0, max_worker=0).status == 202

        pieces = [*long.read_chunks()]

    assert pieces[-1].startswith(b"long60 ")
    wait_until(lambda: not server.workers("joins"), "and then it leaves")


def test_what_runs_is_on_the_metrics_page_and_in_describe(server, register):
    register("joins", "joins.py", CONTINUOUS)
    streams = [begin_stream(server, "joins", f"s{i} {ENDLESS}") for i in range(2)]

    page = server.ask("metrics", "GET", "/metrics").text

    (line,) = [
        line
        for line in page.splitlines()
        if line.startswith("stoker_requests_in_hand{") and "joins" in line
    ]
    assert float(line.split()[-1]) == 2
    assert [worker["requestsInHand"] for worker in server.workers("joins")] == [2]
    for stream in streams:
        stream.close()


def test_after_the_supervisors_death_a_running_batch_begins_anew(start_server, tmp_path):
    """
    Streams break off, who has heard nothing is answered, and the model is not loaded again.
    """
    file = tmp_path / "model-config.yaml"
    file.write_text(CONTINUOUS)
    store = tmp_path / "store"
    store.mkdir()
    pack(Parts("joins", str(HANDLERS / "joins.py"), config_file=file), store)
    server = start_server("--model-store", str(store), "--models", "joins.mar")
    wait_until(lambda: server.predict("joins", "first 1").status == 200, "it serves")
    died = pid_of(server, "joins")
    with begin_stream(server, "joins", f"long {ENDLESS}") as long:
        silent = server.later(server.predict, "joins", "silent 300 late")
        wait_until(lambda: "joined silent" in server.model_log("joins"), "it runs")

        server.supervisor.kill()

        with pytest.raises(EOFError):
            list(long.read_chunks())
        assert silent.answer().text.startswith("silent300 of ")
    assert pid_of(server, "joins") == died


# -- asynchronous workers ---------------------------------------------------------------------


def test_one_worker_has_many_requests_in_progress(server, register):
    """
    Each waits for the others: one after the other they would wait for ever.
    """
    register("eager", "eager.py", ASYNC)

    asked = [server.later(server.predict, "eager", "meet 20") for _ in range(20)]

    assert {answer.answer().text for answer in asked} == {"20"}
    assert server.predict("eager", "meet 21").text == "21"


def test_asynchronous_streams_come_piece_by_piece(server, register):
    register("eager", "eager.py", ASYNC)

    with begin_stream(server, "eager", "stream 5") as stream:
        pieces = [*stream.read_chunks()]

    assert b"".join(pieces) == b"1 2 3 4 end"


def test_a_client_that_leaves_cancels_its_coroutine(server, register):
    register("eager", "eager.py", ASYNC)
    with begin(server, "eager", "wait"):
        wait_until(lambda: "waits" in server.model_log("eager"), "it is in progress")

    wait_until(lambda: "cancelled True" in server.model_log("eager"), "it is cancelled")
    assert server.predict("eager", "meet 1").status == 200


def test_no_more_are_in_progress_than_the_archive_allows(server, register):
    """
    The others queue, where they can be refused or expire.
    """
    register("modest", "eager.py", ASYNC + "max_requests_in_hand: 2\n")
    waiting = [begin(server, "modest", "wait") for _ in range(2)]
    wait_until(lambda: server.model_log("modest").count("waits") == 2, "both are in progress")

    queued = server.later(server.predict, "modest", "meet 1")
    pending = lambda: server.describe("modest")["jobQueueStatus"]["pendingRequests"]  # noqa: E731
    wait_until(lambda: pending() == 1, "the third one waits")
    for connection in waiting:
        connection.close()

    assert queued.answer().status == 200


def test_a_loop_that_stands_still_is_found_and_a_silent_request_is_left_alone(server, register):
    """
    The contract knows no time limit for a request (8.8); a worker that is stuck helps nobody.
    """
    register("stuck", "eager.py", ASYNC + "responseTimeout: 1\n")
    pid = pid_of(server, "stuck")

    assert server.predict("stuck", "nap 2").text == "slept"
    answer = server.predict("stuck", "block")

    assert answer.status == 500
    assert answer.json["failure"]["likely"] == "no answer within response_timeout"
    wait_until(lambda: not psutil.pid_exists(pid), "the worker is replaced")
    assert server.predict("stuck", "meet 1").status == 200
    assert server.describe("stuck")["deaths"]["count"] == 1
