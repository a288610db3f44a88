"""Megabytes from a client's socket to a handler and back: intact, apart from each other, let go.

They travel through shared memory (docs/architecture.md, "Large bodies"), which
outlives processes: these tests also look at what is left in /dev/shm, and at
open files.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading

import psutil
import pytest

from stoker.wire.arena import MIN_BODY_BYTES
from stoker.wire.arena_folder import arena_folder
from stoker.wire.lent_bodies import MIN_BODY_BYTES as MIN_LENT_BYTES
from stoker.worker.lender import MAX_FILES

KIB = 1 << 10
MIB = 1 << 20


@pytest.fixture(scope="module")
def server_flags():
    return ("--max-request-size", str(16 * MIB), "--job-queue-size", "1000")


def pattern(seed: int, length: int) -> bytes:
    """A body that no other request has."""
    word = hashlib.sha256(seed.to_bytes(8, "big")).digest()
    return (word * (length // 32 + 1))[:length]


def told(body: bytes) -> str:
    return f"bytearray {hashlib.sha256(body).hexdigest()}"


def segments(server) -> list[str]:
    return sorted(path.name for path in arena_folder(server.runtime_dir).glob("*"))


def head(model: str, length: int) -> bytes:
    return f"POST /predictions/{model} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize("length", [MIN_BODY_BYTES, MIB, 10 * MIB])
def test_large_bodies_reach_the_handler_as_bytearray_intact(server, length):
    """
    What a handler gets does not depend on how it travelled (contract 2.4).
    """
    server.register("digest", "digest:handle")
    body = pattern(length, length)

    for _ in range(3):
        assert server.predict("digest", body).text == told(body)

    assert segments(server)


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [("application/json", "list"), ("text/plain", "str"), ("image/png", "bytearray")],
)
def test_large_json_and_text_are_decoded_as_ever(server, content_type, kind):
    """
    Decoding happens in the worker, from its copy (contract 2.4).
    """
    server.register("digest", "digest:handle")
    body = json.dumps(["x" * 100] * 20_000).encode()
    assert len(body) > MIB

    answer = server.predict("digest", body, content_type=content_type)

    expected = {"list": "list 20000", "str": f"str {len(body)}", "bytearray": told(body)}
    assert answer.text == expected[kind]


def wrong_answers(server, model, leaves_early, is_right) -> list[object]:
    """Of eight clients who ask for different things, and now and then leave in the middle.

    Args:
        leaves_early: Of a client's chances and its request's length: after how many bytes of
            that, and of the answer, it leaves; None: it stays.
        is_right: Of a body and its answer.
    """
    wrong: list[object] = []

    def ask(seed: int) -> None:
        chosen = random.Random(seed)
        connection = server.connect()
        for turn in range(40):
            body = pattern(seed * 1000 + turn, chosen.randrange(60 * KIB, 900 * KIB))
            sent = head(model, len(body)) + body
            if (left := leaves_early(chosen, len(sent))) is not None:
                connection.send(sent[: left[0]])
                if left[1]:
                    connection.socket.recv(left[1])
                connection.socket.close()
                connection = server.connect()
                continue
            connection.send(sent)
            answer = connection.read_answer()
            if answer.status != 200 or not is_right(body, answer):
                wrong.append((seed, turn, answer.status))
        connection.socket.close()

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def test_bodies_never_mix_while_clients_come_and_leave(server):
    """
    Slots are reused at once; every tenth client leaves somewhere in the middle.
    """
    server.register("digest", "digest:handle", workers=2, batch_size=4, max_batch_delay=1)

    def leaves_early(chosen: random.Random, length: int) -> tuple[int, int] | None:
        return (chosen.choice((length // 2, length)), 0) if chosen.random() < 0.1 else None

    wrong = wrong_answers(
        server, "digest", leaves_early, lambda body, answer: answer.text == told(body)
    )

    assert wrong == []


def test_jobs_of_a_dying_worker_keep_their_bodies(server, until):
    """
    A slot is held until the client has its answer, not until some worker has got the job;
    the one in hand may be tried again, those behind it must be.
    """
    server.register("digest", "digest:handle")
    body = pattern(1, MIB)
    gate = server.gate("hold")
    asked = server.later(server.predict, "digest", body, x_gate="hold")
    gate.wait_reached()
    behind = [server.later(server.predict, "digest", pattern(seed, MIB)) for seed in (2, 3)]
    until(lambda: len(segments(server)) >= 1, "bodies are in shared memory")

    psutil.Process(server.workers("digest")[0]["pid"]).kill()
    gate.close()

    first = asked.answer()
    assert first.status == 507 or first.text == told(body)
    assert [one.answer().text for one in behind] == [told(pattern(seed, MIB)) for seed in (2, 3)]


def test_a_killed_frontend_leaves_nothing_in_shared_memory(start_server, until):
    """
    Its parent clears up; the next one starts with its own.
    """
    server = start_server()
    server.register("digest", "digest:handle")
    server.predict("digest", pattern(1, MIB))
    before = segments(server)
    assert before
    server.expect_error("Worker (pid:")  # gunicorn's master says so

    server.frontend.kill()

    until(lambda: not set(before) & set(segments(server)), "its files are removed")
    until(server.is_answering, "it serves again")
    body = pattern(2, MIB)
    assert server.predict("digest", body).text == told(body)


def test_a_killed_worker_costs_no_shared_memory(start_server, until):
    """
    Readers own nothing.
    """
    server = start_server()
    server.register("digest", "digest:handle")
    server.predict("digest", pattern(1, MIB))
    before = segments(server)

    psutil.Process(server.workers("digest")[0]["pid"]).kill()
    until(lambda: server.predict("digest", pattern(2, MIB)).status == 200, "it works again")

    assert segments(server) == before


def test_a_server_that_stops_leaves_nothing_in_shared_memory(start_server):
    """
    Not even its folder.
    """
    server = start_server()
    server.register("digest", "digest:handle")
    server.predict("digest", pattern(1, MIB))
    assert segments(server)

    server.stop()

    assert not arena_folder(server.runtime_dir).exists()


def test_a_new_supervisor_serves_bodies_of_a_frontend_that_stayed(start_server, until):
    """
    It may start anew while frontends live, so it must not clear up after them.
    """
    server = start_server()
    server.register("digest", "digest:handle")
    server.predict("digest", pattern(1, MIB))
    before = segments(server)

    server.supervisor.kill()
    server.wait_logged("frontend joined", count=2)
    until(server.is_answering, "it serves again")
    until(lambda: server.predict("digest").status == 200, "the model is back")
    body = pattern(2, MIB)

    assert server.predict("digest", body).text == told(body)
    assert segments(server) == before


def test_an_arena_that_is_off_changes_nothing_but_the_speed(start_server):
    """
    arena_max_bytes=0, as where /dev/shm is missing or full.
    """
    server = start_server("--arena-max-bytes", "0")
    server.register("digest", "digest:handle")
    body = pattern(1, 5 * MIB)

    assert server.predict("digest", body).text == told(body)
    assert segments(server) == []


def test_memory_stays_flat_over_hundreds_of_large_requests(server):
    """
    Nobody keeps a body: neither slots nor copies pile up.
    """
    server.register("digest", "digest:handle")
    body = pattern(1, MIB)
    sent = head("digest", len(body)) + body
    connection = server.connect()

    def ask(times: int) -> None:
        for _ in range(times):
            connection.send(sent)
            assert connection.read_answer().text == told(body)

    def weigh() -> int:
        return sum(process.memory_info().rss for process in server.tree())

    ask(100)
    before, files = weigh(), segments(server)
    ask(500)

    assert weigh() - before < 8 * MIB
    assert segments(server) == files


# -- answers ----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [MIN_LENT_BYTES - 1, MIN_LENT_BYTES, MIB, 6 * MIB])
def test_large_answers_come_back_intact(server, length):
    server.register("echo", "echo:handle")
    body = pattern(length, length)

    for _ in range(3):
        assert server.predict("echo", body).body == body


def test_answers_that_a_worker_has_no_room_to_lend_come_inline(start_server):
    """
    More at once than its files may take.
    """
    flags = ("--max-request-size", str(70 * MIB), "--max-response-size", str(70 * MIB))
    server = start_server(*flags)
    server.register("echo", "echo:handle")
    body = pattern(1, 60 * MIB)

    asked = [server.later(server.predict, "echo", body) for _ in range(6)]

    assert all(one.answer().body == body for one in asked)


def test_large_answers_never_mix_while_clients_come_and_leave(server):
    """
    Files are written anew at once; some clients leave before their answer, some in its middle.
    """
    server.register("echo", "echo:handle", workers=2, batch_size=4, max_batch_delay=1)

    def leaves_early(chosen: random.Random, length: int) -> tuple[int, int] | None:
        return (length, chosen.choice((0, 1000))) if chosen.random() < 0.15 else None

    wrong = wrong_answers(server, "echo", leaves_early, lambda body, answer: answer.body == body)

    assert wrong == []


def test_pieces_of_a_stream_may_be_large(server):
    server.register("streams", "streams:handle")
    pieces = [letter * MIB for letter in "abc"]
    asked = {"pieces": [[piece, None] for piece in pieces], "last": "d" * MIB}

    answer = server.predict("streams", json.dumps(asked), content_type="application/json")

    assert answer.text == "".join([*pieces, "d" * MIB])


@pytest.mark.parametrize("victim", ["worker", "supervisor"])
def test_whoever_is_killed_a_large_answer_is_whole_or_an_error(start_server, until, victim):
    """
    Files on their way die with the sockets that they are in; what comes is never another's.
    """
    server = start_server()
    server.register("echo", "echo:handle", workers=2)
    stop = threading.Event()
    wrong: list[object] = []
    good: list[int] = []

    def ask(seed: int) -> None:
        turn = 0
        connection = server.connect()
        while not stop.is_set():
            turn += 1
            body = pattern(seed * 100_000 + turn, 300 * KIB + seed)
            connection.send(head("echo", len(body)) + body)
            answer = connection.read_answer()
            if answer.status == 200:
                good.append(turn)
                if answer.body != body:
                    wrong.append((seed, turn))
            else:
                connection.socket.close()
                connection = server.connect()
        connection.socket.close()

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        before = len(good)
        until(lambda before=before: len(good) > before + 20, "answers come")
        if victim == "worker":
            psutil.Process(server.workers("echo")[0]["pid"]).kill()
        else:
            server.supervisor.kill()
            until(server.is_answering, "it serves again")
    before = len(good)
    until(lambda: len(good) > before + 20, "answers come")
    stop.set()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_open_files_stay_few_over_hundreds_of_large_answers(server, until):
    """
    Each answer is a descriptor in three processes for a moment, the last one too: what
    passed it on closes it after the client has it.
    """
    server.register("echo", "echo:handle")
    body = pattern(1, MIB)
    sent = head("echo", len(body)) + body
    connection = server.connect()

    def ask(times: int) -> None:
        for _ in range(times):
            connection.send(sent)
            assert connection.read_answer().body == body

    def files() -> int:
        return sum(process.num_fds() for process in server.tree())

    ask(20)
    before = files()
    ask(300)

    until(
        lambda: files() <= before + MAX_FILES,
        lambda: f"only what the worker keeps is open: {before} before, {files()} now",
    )


def test_a_client_that_reads_slowly_holds_no_file_of_the_workers(server, until):
    """
    Its answer waits in the frontend; the worker lends the file to the next one.
    """
    server.register("echo", "echo:handle")
    body = pattern(1, 5 * MIB)
    slow = [server.connect() for _ in range(12)]
    for connection in slow:
        connection.send(head("echo", len(body)) + body)
    until(lambda: server.predict("echo", b"x").status == 200, "they are answered")
    worker = psutil.Process(server.workers("echo")[0]["pid"])

    def lent() -> int:
        links = [f"/proc/{worker.pid}/fd/{fd}" for fd in os.listdir(f"/proc/{worker.pid}/fd")]
        return sum("stoker answer" in os.readlink(link) for link in links)

    assert 1 <= lent() <= 8
    for _ in range(12):
        assert server.predict("echo", body).body == body
    assert all(connection.read_answer().body == body for connection in slow)
