"""The load driver measures what it says it measures."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

Answer = Callable[[bytes, int], bytes]

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
)
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class TinyServer:
    """Answers each request with the bytes that `answer(body, number)` returns; b"" hangs up."""

    def __init__(self, answer: Answer) -> None:
        self.bodies: list[bytes] = []
        self.url = ""
        self._answer = answer

    async def run(self, work: Callable[[TinyServer], Awaitable[Any]]) -> Any:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/predictions/echo?a=b"
        async with server:
            return await work(self)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"POST /predictions/echo?a=b HTTP/1.1\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                answer = self._answer(self.bodies[-1], len(self.bodies))
                if not answer:
                    return
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def drive(answer: Answer, pids: tuple[int, ...] = (), **load: Any) -> tuple[Any, TinyServer]:
    import driver

    async def work(server: TinyServer) -> Any:
        options = {"connections": 3, "duration_s": 0.1, "warmup_s": 0.02, "body": b"x" * 100}
        return await driver.drive(driver.Load(server.url, **(options | load)), list(pids))

    server = TinyServer(answer)
    return asyncio.run(server.run(work)), server


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED], ids=["content-length", "chunked"])
def test_every_answer_in_the_window_is_counted_once(answer: bytes) -> None:
    """
    Requests per second and CPU per request both divide by this number.
    """
    outcome, server = drive(lambda body, number: answer)

    assert outcome.requests > 0
    assert len(outcome.latencies_s) == outcome.requests
    assert outcome.requests <= len(server.bodies)
    assert not outcome.failures
    assert set(server.bodies) == {b"x" * 100}


def test_refusals_are_failures_and_not_requests() -> None:
    """
    A server that answers 503 quickly must not look fast.
    """
    outcome, _ = drive(lambda body, number: REFUSAL if number % 2 else PLAIN)

    assert outcome.requests > 0
    assert set(outcome.failures) == {"503"}
    assert json.loads(json.dumps(outcome.summary()))["failures"] == dict(outcome.failures)


def test_a_hang_up_is_counted_and_the_loop_goes_on() -> None:
    """
    A worker kill shows as broken connections in some peers; the load must not thin out.
    """
    outcome, _ = drive(
        lambda body, number: b"" if number % 5 == 0 else PLAIN, duration_s=0.4, warmup_s=0.0
    )

    assert outcome.failures["connection lost"] > 0
    assert outcome.requests > outcome.failures["connection lost"]


def test_bytes_that_are_not_http_are_a_failure() -> None:
    """
    The driver may be pointed at anything.
    """
    outcome, _ = drive(lambda body, number: b"SSH-2.0-whatever\r\n\r\n")

    assert outcome.requests == 0
    assert set(outcome.failures) == {"bad answer"}


def test_cpu_of_the_process_named_is_reported() -> None:
    """
    The figure that holds on a noisy machine.
    """
    outcome, _ = drive(lambda body, number: PLAIN, pids=(os.getpid(),), duration_s=0.3)

    figures = outcome.summary()
    assert 0 < figures["cpu_s"] < 0.3 * (os.cpu_count() or 1) + 0.1
    assert figures["cpu_s_per_1000"] == pytest.approx(figures["cpu_s"] / outcome.requests * 1000)


def test_the_command_prints_one_json_object(checkout: Any) -> None:
    """
    benchmarks/bench.py reads it from a process of its own.
    """

    async def work(server: TinyServer) -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(checkout / "benchmarks" / "driver.py"),
            *(server.url, "--connections=2", "--duration=0.1", "--warmup=0", "--body-bytes=7"),
            stdout=subprocess.PIPE,
        )
        printed, _ = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0
        return printed

    server = TinyServer(lambda body, number: PLAIN)
    figures = json.loads(asyncio.run(server.run(work)))

    assert figures["requests"] > 0
    assert figures["p50_ms"] <= figures["p99_ms"]
    assert set(server.bodies) == {b"x" * 7}


@given(st.sampled_from([PLAIN, CHUNKED, REFUSAL]), st.lists(st.integers(0, 120), max_size=12))
def test_framing_does_not_depend_on_how_bytes_arrive(answer: bytes, cuts: list[int]) -> None:
    """
    TCP may cut anywhere; two answers in a row must be two answers.
    """
    import driver

    framing = driver.AnswerFraming()
    for _ in range(2):
        edges = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
        pieces = [answer[a:b] for a, b in itertools.pairwise(edges)]

        done = [framing.feed(piece) for piece in pieces]

        assert done == [False] * (len(pieces) - 1) + [True]
        assert framing.status in (200, 503)


def test_a_body_longer_than_announced_is_refused() -> None:
    """
    Otherwise the rest would be read as the next answer's head.
    """
    import driver

    with pytest.raises(driver.BadAnswer):
        driver.AnswerFraming().feed(PLAIN + b"!")


def test_percentiles_are_nearest_rank() -> None:
    """
    No interpolation: a p99 is a latency that really occurred.
    """
    import driver

    assert driver.percentile([], 0.99) == 0.0
    assert driver.percentile([1.0], 0.99) == 1.0
    assert driver.percentile([float(n) for n in range(100)], 0.50) == 50.0
    assert driver.percentile([float(n) for n in range(100)], 0.99) == 99.0
