"""Promise 4: workers keep their models, and clients their answers, when the supervisor dies.

One server dies again and again here, so its launcher waits a little longer
each time; only the first test says how long clients wait.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest
from facts import wait_until
from fates import replace_supervisor
from live_server import has_ended

from stoker.wire import codec
from stoker.wire.frames import PROTOCOL, WorkerBack
from stoker.wire.runtime_dir import worker_address
from stoker.wire.stream import PeerGone, Stream

JSON = "application/json"


def pids(server: Any, model: str) -> list[int]:
    return sorted(worker["pid"] for worker in server.workers(model))


def count(server: Any, event: str, **facts: Any) -> int:
    return len(server.logged(event, **facts))


@pytest.fixture
def echoes(server: Any) -> list[int]:
    """Two workers of a model named echo; their pids."""
    server.register("echo", "echo:handle", workers=2)
    return pids(server, "echo")


def is_adopted(server: Any, adopted: int, more: int) -> bool:
    return count(server, "worker adopted") >= adopted + more


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR2])
def test_a_new_supervisor_under_64_connections_fails_no_request(server, crowd, echoes, number):
    """
    Killed or asked to hand over: the same workers go on with the models they
    have, and nobody waits for long.
    """
    loads = count(server, "worker ready")
    clients = crowd(server, "echo", 64, 2.5)
    wait_until(lambda: server.predict("echo", "up").status == 200, "it works")

    replace_supervisor(server, number)
    figures = clients.figures()

    assert figures["failures"] == {}
    assert figures["requests"] > 64
    assert figures["quantiles_ms"][-1] < 2000
    assert pids(server, "echo") == echoes
    assert count(server, "worker ready") == loads


def test_three_deaths_in_a_row_fail_no_request(server, crowd, echoes):
    """
    A worker that has been adopted is as good as one that was started.
    """
    clients = crowd(server, "echo", 16, 5.0)

    for _ in range(3):
        adopted = count(server, "worker adopted")
        replace_supervisor(server)
        wait_until(lambda before=adopted: is_adopted(server, before, 2), "both are back")
    figures = clients.figures()

    assert figures["failures"] == {}
    assert pids(server, "echo") == echoes


def test_a_batch_that_runs_meanwhile_is_answered_and_not_run_twice(server):
    """
    The worker's answer reaches the client by way of a supervisor that never
    sent the request; what the handler prints reaches the log.
    """
    server.register("does", "does:handle", workers=2)
    gate = server.gate("busy")
    asked = server.later(server.predict, "does", '{"gate": "busy"}', content_type=JSON)
    gate.wait_reached()
    before = pids(server, "does")

    replace_supervisor(server)
    assert server.predict("does", "{}", content_type=JSON).text == "OK", "others are served"
    gate.let_go()

    assert asked.answer().text == "OK"
    assert server.model_log("does").count("at gate busy") == 1
    assert pids(server, "does") == before
    last = server.gate("last")
    asked = server.later(server.predict, "does", '{"gate": "last"}', content_type=JSON)
    last.let_go()
    assert asked.answer().status == 200
    wait_until(lambda: "at gate last" in server.model_log("does"), "its output is read on")


def test_an_answer_that_nobody_could_hear_arrives_without_another_request(server):
    """
    The worker is adopted before the frontend is known; then nothing else has to happen.
    """
    server.register("m", "does:handle")
    gate = server.gate("meanwhile")
    asked = server.later(server.predict, "m", '{"gate": "meanwhile"}', content_type=JSON)
    gate.wait_reached()

    server.supervisor.kill()
    gate.let_go()

    assert asked.answer().status == 200


def test_a_worker_that_loads_meanwhile_is_adopted_when_it_has(server):
    """
    A model that takes long to load is not loaded from the beginning.
    """
    gate = server.gate("start")
    asked = server.manage(
        "POST", "/models", model_name="slow", handler="slow_start:handle", initial_workers=1
    )
    assert asked.status == 202, asked.text
    gate.wait_reached()
    before = pids(server, "slow")

    replace_supervisor(server)
    gate.let_go()

    assert server.predict("slow").text == "OK"
    assert pids(server, "slow") == before


def test_a_worker_that_dies_with_the_supervisor_costs_its_client_nothing(server):
    """
    Its request is tried once more, by another worker.
    """
    server.register("does", "does:handle", workers=2)
    gate = server.gate("both")
    asked = server.later(server.predict, "does", '{"gate": "both"}', content_type=JSON)
    gate.wait_reached()
    slot = server.wait_logged("at gate both")["worker"]
    (pid,) = [each["pid"] for each in server.workers("does") if int(each["id"]) == slot]

    os.kill(server.supervisor.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    replace_supervisor(server)
    gate.stay_open()
    gate.let_go()

    assert asked.answer().text == "OK"
    assert pid not in pids(server, "does")


def test_a_stopped_worker_holds_its_requests_up_no_longer_than_a_hanging_handler(server):
    """
    It can tell no successor what it had begun; `response_timeout` bounds that as ever.
    """
    server.register("does", "does:handle", response_timeout=2)
    gate = server.gate("deaf")
    asked = server.later(server.predict, "does", '{"gate": "deaf"}', content_type=JSON)
    gate.wait_reached()
    (pid,) = pids(server, "does")

    os.kill(pid, signal.SIGSTOP)
    gate.stay_open()
    gate.let_go()
    replace_supervisor(server)

    assert asked.answer().text == "OK"
    line = server.wait_logged("worker is aborted", worker_pid=pid)
    assert line["why"] == "did not come back to the next supervisor"
    assert not server.logged("worker lost", worker_pid=pid)[0]["jobs_failed"]


def test_a_worker_that_dies_after_its_adoption_is_replaced(server, echoes):
    """
    Its parent is gone, so nobody but the kernel's word tells how it ended.
    """
    replace_supervisor(server)
    wait_until(lambda: server.predict("echo", "x").status == 200, "it serves")
    wait_until(lambda: count(server, "worker adopted", worker_pid=echoes[0]), "it is back")

    os.kill(echoes[0], signal.SIGKILL)

    line = server.wait_logged("worker lost", worker_pid=echoes[0])
    assert line["exit"] == "SIGKILL"
    wait_until(lambda: len(set(pids(server, "echo")) - {echoes[0]}) == 2, "there are two again")
    assert has_ended(echoes[0])


def test_management_goes_on_with_the_next_supervisor(server, echoes):
    """
    A question that falls into the gap is asked again; nobody sees an error.
    """
    os.kill(server.supervisor.pid, signal.SIGSTOP)
    asked = server.later(server.describe, "echo")
    wait_until(lambda: not asked.is_answered, "it waits")

    replace_supervisor(server)

    assert sorted(each["pid"] for each in asked.answer()["workers"]) == echoes
    assert server.manage("PUT", "/models/echo", min_worker=1, synchronous="true").status == 200
    assert len(pids(server, "echo")) == 1


def test_nobody_passes_for_a_worker_of_the_predecessor(server, echoes):
    """
    The socket is in a folder of ours, and still the token and the pid must be right.
    """
    replace_supervisor(server)

    stranger = Stream(worker_address(server.runtime_dir), 5.0)
    stranger.send(codec.encode(WorkerBack(PROTOCOL, 1, b"guess", echoes[0], {})))

    def is_shown_out() -> bool:
        try:
            list(stranger.receive())
        except BlockingIOError:
            return False
        except PeerGone:
            return True
        return False

    wait_until(is_shown_out, "it is hung up on")
    stranger.close()
    assert server.predict("echo", "x").text == "x"
    assert pids(server, "echo") == echoes


def test_orphans_leave_when_nobody_comes(start_server):
    """
    A worker without a supervisor must not keep a GPU for ever.
    """
    server = start_server("--orphan-grace-s", "0.5")
    server.register("echo", "echo:handle")
    (pid,) = pids(server, "echo")
    supervisor = server.supervisor

    os.kill(server.process.pid, signal.SIGSTOP)  # or it would start another one
    supervisor.kill()
    wait_until(lambda: has_ended(pid), "the orphan has left")
    os.kill(server.process.pid, signal.SIGCONT)

    wait_until(lambda: server.predict("echo", "x").status == 200, "it is replaced")
    assert pids(server, "echo") != [pid]


def test_workers_end_with_the_supervisor_where_they_are_told_to(start_server):
    """
    `orphan_grace_s=0`: nothing of a server outlives its supervisor.
    """
    server = start_server("--orphan-grace-s", "0")
    server.register("echo", "echo:handle")
    (pid,) = pids(server, "echo")

    replace_supervisor(server)

    assert has_ended(pid) or psutil.Process(pid).ppid() != server.supervisor.pid
    assert server.predict("echo", "x").text == "x"
    assert pids(server, "echo") != [pid]
