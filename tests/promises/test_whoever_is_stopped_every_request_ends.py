"""Promise 1: SIGSTOP of each kind of process; every accepted request still ends, in time.

A stopped process neither answers nor ends, and no connection breaks: only its silence tells.
The server of this module has watchdogs of seconds, and one response timeout of two.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
from collections.abc import Callable, Iterator

import psutil
import pytest
from facts import wait_until
from fates import ask, ask_later, noted
from impatient import SERVE
from live_server import Answer, Later, Server, has_ended

pytestmark = pytest.mark.slow

WORKERS = 2
JSON = "application/json"
#: How requests that were accepted may end while somebody is stopped and replaced.
HONEST = {200, 408, 500, 503}


@pytest.fixture(scope="module")
def server(_orphans_come_to_us: None) -> Iterator[Server]:
    """One for all; each test leaves it serving."""
    server = Server(program=("-c", SERVE))
    try:
        server.wait_started()
        yield server
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    finally:
        server.destroy()


@pytest.fixture
def fates(server, model) -> Iterator[str]:
    """A model of two workers that do as they are told; gone afterwards."""
    server.register(model, "fates:handle", WORKERS, response_timeout=2)
    yield model
    server._close_gates()
    server.manage("DELETE", f"/models/{model}")


@pytest.fixture
def stop() -> Iterator[Callable[[int], None]]:
    """SIGSTOP; whoever still is at the end goes on."""
    stopped: list[int] = []

    def hold(pid: int) -> None:
        stopped.append(pid)
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: is_stopped(pid), "it has stopped")

    yield hold
    for pid in stopped:
        go_on(pid)


def go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def serving(server: Server) -> psutil.Process:
    """The process below the frontends' master; it is numbered anew whenever it is replaced."""
    return server.child("stoker: frontend ")


def is_well(server: Server, model: str) -> bool:
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        server.read_addresses()
        return ask(server, model, "fine").status == 200
    return False


def in_hand(server: Server, model: str, name: str) -> Later:
    """A request that a handler has begun and holds until the gate of that name is opened."""
    asked = ask_later(server, model, f"gate {name}")
    wait_until(lambda: f"gate {name}" in noted(server, model), "it has been begun")
    return asked


def ending(asked: Later) -> Answer | None:
    """The answer in time; None when the connection ended instead."""
    try:
        return asked.answer()
    except (OSError, http.client.HTTPException):
        return None


def test_a_stopped_launcher_costs_nobody_anything(server, fates, stop):
    """
    It does nothing while all is well; a worker is replaced without it.
    """
    gate = server.gate("launcher")
    asked = in_hand(server, fates, "launcher")

    stop(server.process.pid)
    answers = [ask(server, fates, f"fine {number}").status for number in range(20)]
    crashed = ask(server, fates, "die segv")
    gate.let_go()

    assert answers == [200] * 20
    assert asked.answer().text == "gate launcher"
    assert (crashed.status, crashed.json["failure"]["attempts"]) == (500, 2)
    wait_until(lambda: len(server.workers(fates)) == WORKERS, "the dead are replaced")


def test_requests_wait_for_a_launcher_that_was_stopped_when_the_supervisor_died(
    server, fates, stop
):
    """
    Nobody starts another supervisor meanwhile; then what was in hand and what came is answered.
    """
    gate = server.gate("both")
    asked = in_hand(server, fates, "both")
    supervisor = server.supervisor.pid

    stop(server.process.pid)
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: has_ended(supervisor), "it is dead")
    came = ask_later(server, fates, "fine")
    gate.let_go()
    go_on(server.process.pid)

    assert asked.answer().text == "gate both"
    assert came.answer().status in {200, 503}
    assert noted(server, fates).count("gate both") == 1
    wait_until(lambda: is_well(server, fates), "it serves")


@pytest.mark.parametrize("how", ["briefly", "for-good"])
def test_a_stopped_supervisor_loses_no_request(server, fates, stop, how):
    """
    Before its watchdog bites, or after: then its successor adopts the workers.
    """
    name = f"supervisor-{how}"
    gate = server.gate(name)
    asked = in_hand(server, fates, name)
    supervisor = server.supervisor.pid

    stop(supervisor)
    came = [ask_later(server, fates, f"fine {number}") for number in range(8)]
    gate.let_go()
    if how == "briefly":
        go_on(supervisor)
    else:
        wait_until(lambda: has_ended(supervisor), "its watchdog has bitten")

    assert asked.answer().text == f"gate {name}"
    assert noted(server, fates).count(f"gate {name}") == 1
    assert {each.answer().status for each in came} <= {200, 503}
    wait_until(lambda: is_well(server, fates), "it serves")
    assert (server.supervisor.pid == supervisor) == (how == "briefly")


def test_a_frontend_process_that_is_stopped_for_a_moment_keeps_its_requests(server, fates, stop):
    """
    The supervisor does not take its silence for its end while the process lives.
    """
    gate = server.gate("moment")
    asked = in_hand(server, fates, "moment")
    frontend = serving(server).pid

    stop(frontend)
    gate.let_go()
    go_on(frontend)

    assert asked.answer().text == "gate moment"
    assert serving(server).pid == frontend


def test_a_frontend_process_that_stays_stopped_is_replaced(server, fates, stop):
    """
    Its clients see their connections end, and the next ones are answered by another.
    """
    # Not "frontend": by a file of that name this server's frontend gets stuck (impatient.py).
    gate = server.gate("for-good")
    asked = in_hand(server, fates, "for-good")
    frontend = serving(server).pid

    stop(frontend)
    wait_until(lambda: has_ended(frontend), "its master has noticed")
    ended = ending(asked)
    gate.let_go()

    assert ended is None or ended.status in HONEST
    wait_until(lambda: is_well(server, fates), "another one serves")


def test_a_stopped_master_of_the_frontends_costs_no_request(server, fates, stop):
    """
    Those that it has forked go on; when its watchdog has bitten there are others.
    """
    master = serving(server).ppid()
    gate = server.gate("master")
    asked = in_hand(server, fates, "master")

    stop(master)
    answers = [ask(server, fates, "fine").status for _ in range(8)]
    gate.let_go()

    assert answers == [200] * 8
    assert asked.answer().text == "gate master"
    wait_until(lambda: has_ended(master), "the launcher has noticed")
    wait_until(lambda: is_well(server, fates), "there is another")


@pytest.mark.parametrize("how", ["briefly", "for-good"])
def test_a_stopped_worker_holds_its_requests_no_longer_than_it_may(server, fates, stop, how):
    """
    Short of `response_timeout` it goes on where it was; beyond, it is as silent as one that hangs.
    """
    name = f"worker-{how}"
    gate = server.gate(name)
    asked = in_hand(server, fates, name)
    pids = [worker["pid"] for worker in server.workers(fates)]

    for pid in pids:
        stop(pid)
    if how == "briefly":
        for pid in pids:
            go_on(pid)
        gate.let_go()
        assert asked.answer().text == f"gate {name}"
        assert [worker["pid"] for worker in server.workers(fates)] == pids
        return
    ended = asked.answer()

    assert (ended.status, ended.json["failure"]["attempts"]) == (500, 1)
    wait_until(lambda: any(map(has_ended, pids)), "it is killed")
    wait_until(lambda: is_well(server, fates), "there is another")


def test_a_stopped_template_delays_a_worker_and_stops_none(server, fates, stop):
    """
    An interpreter of its own is the ordinary way.
    """
    template = server.child("stoker: template").pid

    stop(template)
    answer = server.manage("PUT", f"/models/{fates}", min_worker=WORKERS + 1, synchronous="true")

    assert answer.status == 200
    assert len(server.workers(fates)) == WORKERS + 1
    assert ask(server, fates, "fine").status == 200
