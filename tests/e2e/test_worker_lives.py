"""Workers that die, hang, cannot load, or are told to leave, and what clients see of it."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

pytestmark = pytest.mark.slow

JSON = "application/json"
LAST_LINE = "ValueError: the weights are missing"


def ask(server, model="m", **asked):
    return server.predict(model, json.dumps(asked), content_type=JSON)


def ask_later(server, model="m", **asked):
    return server.later(ask, server, model, **asked)


def pid_of(server, model="m"):
    (worker,) = server.workers(model)
    return worker["pid"]


def pending(server, model="m"):
    return server.describe(model)["jobQueueStatus"]["pendingRequests"]


# -- deaths ----------------------------------------------------------------------------


def test_killed_worker_is_replaced_and_the_next_request_answered(server):
    """
    A request that comes while the replacement loads waits for it.
    """
    server.register("m", "does:handle")
    pid = pid_of(server)

    os.kill(pid, signal.SIGKILL)
    server.wait_logged("worker lost", worker_pid=pid)
    answer = ask(server, do="pid")

    assert answer.status == 200
    assert int(answer.body) != pid
    assert server.describe("m")["workers"][0]["status"] == "READY"


def test_killed_worker_costs_its_clients_a_moment_and_no_error(server, until):
    """
    The request in its hand is tried again, what was queued behind it goes to the replacement.
    """
    server.register("m", "does:handle")
    gate = server.gate("dies")
    in_hand = ask_later(server, gate="dies")
    gate.wait_reached()
    queued = [ask_later(server, do="ok") for _ in range(3)]
    until(lambda: pending(server) == 3, "three requests wait")

    gate.stay_open()  # for the one who tries again
    os.kill(pid_of(server), signal.SIGKILL)

    assert in_hand.answer().status == 200
    assert [each.answer().status for each in queued] == [200] * 3


def test_killed_worker_costs_only_the_request_in_its_hand(start_server, until):
    """
    Where nothing may be tried twice, the client is told; the others notice nothing.
    """
    server = start_server("--max-attempts", "1")
    server.register("m", "does:handle")
    gate = server.gate("dies")
    in_hand = ask_later(server, gate="dies")
    gate.wait_reached()
    queued = [ask_later(server, do="ok") for _ in range(3)]
    until(lambda: pending(server) == 3, "three requests wait")

    os.kill(pid_of(server), signal.SIGKILL)

    # SIGKILL that was not ours smells of the kernel's memory killer (1.6).
    assert (in_hand.answer().status, in_hand.answer().json["message"]) == (507, "Worker died.")
    assert [each.answer().status for each in queued] == [200] * 3


def test_hanging_worker_shows_its_stack_and_is_replaced(server, is_gone):
    """
    Issue point 6: silent past response_timeout, SIGABRT first so the log shows the Python stack.
    """
    server.register("m", "does:handle", response_timeout=1)
    pid = pid_of(server)

    answer = ask(server, do="hang")
    after = ask(server, do="pid")

    assert (answer.status, answer.json["message"]) == (500, "Worker died.")
    assert int(after.body) != pid
    assert is_gone(pid)
    log = server.model_log("m")
    assert "hang_for_ever" in log
    assert "Fatal Python error: Aborted" in log


def test_streaming_handler_that_keeps_talking_is_not_taken_for_dead(server):
    """
    2.7: the response timeout restarts on every message.
    """
    server.register("s", "streams:handle", response_timeout=1)
    server.gate("start")  # `slow` stays loading: its requests only wait and expire
    query = {"model_name": "slow", "handler": "slow_start:handle", "initial_workers": 1}
    server.manage("POST", "/models", **query)
    gates = [server.gate(f"talk{i}") for i in range(4)]
    body = json.dumps({"pieces": [["x", gate.path.name] for gate in gates], "last": "end"})
    with server.connect() as connection:
        connection.send(
            b"POST /predictions/s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body.encode())
        )
        connection.read_head()
        started_at = time.monotonic()
        for gate in gates:
            assert connection.read_chunk() == b"x"
            gate.wait_reached()
            assert server.predict("slow", x_request_timeout_ms="350").status == 408
            gate.let_go()
        assert connection.read_chunk() == b"end"

    assert time.monotonic() - started_at > 1.4


# -- loading ---------------------------------------------------------------------------


def register_broken(server, model="b", **query):
    return server.manage(
        "POST", "/models", model_name=model, handler="broken:handle", initial_workers=2, **query
    )


def test_failed_load_is_told_in_the_synchronous_answer(server):
    """
    1.6, 3.1: 500, the traceback's last line, the log's name, and the model is gone again.
    """
    server.expect_error("load failed")

    answer = register_broken(server, synchronous="true")

    assert answer.status == 500
    document = answer.json
    assert document["type"] == "InternalServerException"
    assert document["message"] == "Failed to start workers for model b version: 1.0"
    assert document["failure"]["lastLine"] == LAST_LINE
    assert document["failure"]["log"] == "models/b/1.0.log"
    assert server.manage("GET", "/models/b").status == 404


def test_failed_load_is_logged_once_and_not_retried(server, until):
    """
    Issue point 6: reported once, in describe with the last line and where to read the rest.
    """
    server.expect_error("load failed")

    assert register_broken(server, "once", synchronous="false").status == 202
    until(lambda: server.describe("once")["status"] == "Failed", "describe says so")
    until(lambda: server.describe("once")["workers"] == [], "both workers are gone")

    record = server.describe("once")
    assert record["failure"]["lastLine"] == LAST_LINE
    log = server.log_dir / record["failure"]["log"]
    assert log.read_text().count(LAST_LINE) == 2  # two workers, one try each
    (line,) = server.logged("load failed", model="once")
    assert line["last_line"] == LAST_LINE
    assert server.predict("once").status == 503


def test_scaling_up_tries_a_failed_version_again(server, until):
    """
    The operator has mended something; the answer names no version when the path named none.
    """
    server.expect_error("load failed")
    register_broken(server, synchronous="false")
    until(lambda: server.describe("b")["status"] == "Failed", "describe says so")

    answer = server.manage("PUT", "/models/b?min_worker=1&synchronous=true")

    assert answer.status == 500
    assert answer.json["message"] == "Failed to start workers for model b version: null"


def test_load_without_memory_is_507(server):
    """
    1.6: the same text with another status.
    """
    server.expect_error("load failed")

    answer = server.manage(
        "POST",
        "/models",
        model_name="starved",
        handler="starved",
        initial_workers=1,
        synchronous="true",
    )

    assert answer.status == 507
    assert answer.json["message"] == "Failed to start workers for model starved version: 1.0"


def test_worker_that_does_not_load_in_time_is_killed(server):
    """
    startup_timeout; the synchronous answer says that it failed.
    """
    server.gate("start")

    answer = server.manage(
        "POST",
        "/models",
        model_name="slow",
        handler="slow_start:handle",
        initial_workers=1,
        synchronous="true",
        startup_timeout=1,
    )

    assert answer.status == 500
    assert answer.json["message"] == "Failed to start workers for model slow version: 1.0"


def test_prediction_waits_for_the_first_worker_to_load(server, until):
    """
    contracts/README.md: scripts that register and predict at once work either way.
    """
    gate = server.gate("start")
    query = {"model_name": "slow", "handler": "slow_start:handle", "initial_workers": 1}
    assert server.manage("POST", "/models", **query).status == 202

    asked = server.later(server.predict, "slow", b"x")
    until(lambda: pending(server, "slow") == 1, "the request waits")
    gate.let_go()

    assert asked.answer().body == b"OK"


# -- leaving ---------------------------------------------------------------------------


def hold(server, workers=1, **query):
    """A request in the hand of every worker; returns (gate, request) pairs."""
    server.register("m", "does:handle", workers, **query)
    held = []
    for i in range(workers):
        gate = server.gate(f"hold{i}")
        held.append((gate, ask_later(server, gate=f"hold{i}")))
        gate.wait_reached()
    return held


def test_scale_down_waits_for_the_request_in_hand(server, is_gone):
    """
    Issue point 6; the peer cuts it.
    """
    held = hold(server, workers=2)
    pids = [worker["pid"] for worker in server.workers("m")]

    scaled = server.later(server.manage, "PUT", "/models/m?min_worker=1&synchronous=true")
    server.wait_logged("model scales", workers=1)
    for gate, _ in held:
        gate.let_go()

    assert [asked.answer().status for _, asked in held] == [200, 200]
    assert scaled.answer().status == 200
    assert [worker["pid"] for worker in server.workers("m")] == pids[:1]
    assert is_gone(pids[1])


def test_unregister_waits_for_the_request_in_hand(server, until):
    """
    New requests are refused at once, the old one is answered.
    """
    ((gate, asked),) = hold(server)

    unregistered = server.later(server.manage, "DELETE", "/models/m")
    until(lambda: server.manage("GET", "/models/m").status == 404, "the model is gone")
    assert server.predict("m").status == 404
    assert not unregistered.is_answered
    gate.let_go()

    assert asked.answer().body == b"OK"
    assert unregistered.answer().status == 200


def test_unregister_answers_what_is_queued(server, until):
    """
    3.7: 503 at once, where the peer forgets them; also one that was sent ahead.
    """
    ((gate, asked),) = hold(server)
    queued = [ask_later(server, do="ok") for _ in range(3)]
    until(lambda: pending(server) == 3, "three requests wait")

    unregistered = server.later(server.manage, "DELETE", "/models/m")
    refused = [each.answer() for each in queued]
    gate.let_go()

    assert [each.json["type"] for each in refused] == ["ServiceUnavailableException"] * 3
    assert [each.json["message"] for each in refused] == ["Model m was unregistered."] * 3
    assert [each.status for each in refused] == [503] * 3
    assert asked.answer().status == 200
    assert unregistered.answer().status == 200


def test_scale_with_timeout_zero_kills_at_once(server, is_gone):
    """
    The page: "Use 0 to terminate the backend worker process immediately."
    """
    ((_, asked),) = hold(server)
    pid = pid_of(server)

    query = "min_worker=0&max_worker=0&timeout=0&synchronous=true"
    scaled = server.manage("PUT", f"/models/m?{query}")

    assert scaled.said == "Workers scaled to 0 for model: m"
    assert asked.answer().status == 503
    assert is_gone(pid)


def test_scale_with_a_timeout_kills_when_it_has_passed(server):
    """
    The page: "If exceeded, the work process will be terminated."
    """
    ((_, asked),) = hold(server)
    started_at = time.monotonic()

    query = "min_worker=0&max_worker=0&timeout=1&synchronous=true"
    scaled = server.manage("PUT", f"/models/m?{query}")

    assert scaled.status == 200
    assert 1.0 <= time.monotonic() - started_at < 4.0
    assert asked.answer().status == 503


def test_unregister_that_takes_too_long_is_told_and_finished(server, until, is_gone):
    """
    1.6: 408 after unregister_model_timeout; the workers are killed then.
    """
    ((_, asked),) = hold(server)
    pid = pid_of(server)

    answer = server.manage("DELETE", "/models/m")

    assert (answer.status, answer.json["type"]) == (408, "RequestTimeoutException")
    assert answer.json["message"] == "Timed out while cleaning resources: m"
    assert asked.answer().status == 503
    until(lambda: is_gone(pid), "the worker is gone")


# -- clients that leave ------------------------------------------------------------------


def test_request_whose_client_left_is_not_worked_on(server, until):
    """
    A client that gave up must not cost a worker's time.
    """
    ((gate, asked),) = hold(server)
    ahead = ask_later(server, do="ok")
    until(lambda: pending(server) == 1, "one was sent ahead")
    with server.connect() as connection:
        connection.send(
            b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
            b'Content-Length: 15\r\n\r\n{"do": "raise"}'
        )
        until(lambda: pending(server) == 2, "it waits")

    until(lambda: pending(server) == 1, "it is forgotten")
    gate.let_go()

    assert [asked.answer().status, ahead.answer().status] == [200, 200]
    assert "ValueError" not in server.model_log("m")


def test_request_that_waits_past_its_deadline_is_told_so(server):
    """
    X-Request-Timeout-Ms: nobody wants the answer any more, wherever the request waits.
    """
    ((gate, asked),) = hold(server)

    # The first is sent ahead to the busy worker, the others stay in the queue.
    late = [server.later(server.predict, "m", b"{}", x_request_timeout_ms="300") for _ in range(3)]
    answers = [each.answer() for each in late]
    gate.let_go()

    assert [(answer.status, answer.json["type"]) for answer in answers] == [
        (408, "RequestTimeoutException")
    ] * 3
    assert asked.answer().status == 200


def test_request_in_hand_past_its_deadline_is_told_so(server):
    """
    The client is free; the worker finishes what it began and serves the next one.
    """
    server.register("m", "does:handle")
    gate = server.gate("long")

    answer = server.predict("m", b'{"gate": "long"}', content_type=JSON, x_request_timeout_ms="300")
    gate.let_go()

    assert answer.status == 408
    assert ask(server, do="ok").body == b"OK"


# -- our own processes ---------------------------------------------------------------------


def test_killed_supervisor_is_restarted_and_clients_do_not_notice(start_server):
    """
    What a worker had in hand is answered when it is done, by the same worker,
    through the supervisor's successor.
    """
    server = start_server()
    ((gate, asked),) = hold(server)
    worker = pid_of(server)

    server.supervisor.kill()
    server.wait_logged("process ended, starting it again", process_name="supervisor")
    server.wait_logged("frontend joined", count=2)
    gate.let_go()

    assert asked.answer().status == 200
    assert int(ask(server, do="pid").body) == worker


@pytest.mark.parametrize("who", ["process", "master"])
def test_killed_frontend_is_restarted_and_models_stay(start_server, until, is_gone, who):
    """
    It holds no state: the same workers answer the next client.
    """
    server = start_server()
    server.register("m", "does:handle")
    worker = pid_of(server)
    frontend = server.frontend
    victim = frontend if who == "process" else frontend.parent()
    if who == "process":
        server.expect_error("Worker (pid:")  # gunicorn's master says so

    victim.kill()
    until(lambda: is_gone(frontend.pid), "it is dead")
    server.wait_logged("serving", count=2)
    until(server.is_answering, "it serves again")

    assert int(ask(server, do="pid").body) == worker


def test_killed_launcher_leaves_nothing(start_server, until, leftovers):
    """
    `kill -9` on the root of the tree takes the tree with it, in order.
    """
    server = start_server()
    server.register("m", "does:handle")
    assert len(server.tree()) >= 4

    server.process.kill()
    server.process.wait()
    server.forget()

    until(lambda: leftovers() == [], "no process is left")
    for name in ("frontend.sock", "answers.sock", "workers"):
        assert not (server.runtime_dir / name).exists()


def test_stop_answers_what_is_in_hand_and_takes_nothing_new(start_server, until):
    """
    SIGTERM drains: the request is answered, the exit code is 0.
    """
    server = start_server()
    ((gate, asked),) = hold(server)

    server.process.terminate()
    server.wait_logged("stop asked for", signal="SIGTERM")
    until(lambda: not server.is_answering(), "new connections are refused")
    gate.let_go()

    assert asked.answer().body == b"OK"
    assert server.process.wait(20) == 0


def test_stop_does_not_wait_longer_than_the_drain_timeout(start_server):
    """
    A request that hangs is cut; the exit code is still that of an orderly stop.
    """
    server = start_server("--drain-timeout-s", "1")
    ((_, asked),) = hold(server)
    started_at = time.monotonic()

    server.process.terminate()

    assert server.process.wait(20) == 0
    assert time.monotonic() - started_at < 8
    with pytest.raises((OSError, AssertionError)):
        assert asked.answer().status == 200


def test_two_servers_do_not_share_a_runtime_directory(start_server):
    """
    The second one says so and exits with its own code.
    """
    server = start_server()

    code, said = server.start_again()

    assert code == 75
    assert "already running" in said
    assert server.is_answering()


def test_a_handler_may_take_longer_than_a_request_may_wait(start_server):
    """
    request_deadline_s bounds the wait for a worker; response_timeout bounds the handler.
    """
    server = start_server("--request-deadline-s", "0.3")
    server.register("m", "does:handle")
    gate = server.gate("slow")
    in_hand = ask_later(server, gate="slow")
    gate.wait_reached()
    ahead = ask_later(server, do="ok")
    waits = ask_later(server, do="ok")

    assert ahead.answer().status == 408
    assert waits.answer().status == 408
    assert pending(server) == 0
    gate.let_go()
    assert in_hand.answer().status == 200
