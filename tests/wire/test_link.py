"""A Link and the supervisor's real port for frontends: what is asked is answered, or ends."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import zmq
from stream_end import StreamEnd

from stoker.clock import MonotonicClock
from stoker.errors import SupervisorUnavailable
from stoker.supervisor import frontend_port
from stoker.supervisor.frontend_port import FrontendPort
from stoker.wire import codec, connections, sockets
from stoker.wire import frames as f
from stoker.wire.link import Link
from stoker.wire.payloads import Answer, AnswerKind, pack_answers
from stoker.wire.pending import Pending
from stoker.wire.runtime_dir import answers_address, frontend_address
from stoker.wire.stream import socket_path

DEADLINE_S = 20.0
MIB = 1 << 20


class PaperSupervisor:
    """The real port, and behind it somebody who welcomes and remembers."""

    def __init__(self, folder: Path, incarnation: bytes) -> None:
        self.incarnation = incarnation
        self.jobs: list[f.SubmittedJob] = []
        self.calls: list[f.Call] = []
        self.lost: list[str] = []
        self.frontend_id = b""
        self.port = FrontendPort(
            asyncio.get_running_loop(),
            MonotonicClock(),
            frontend_address(folder),
            answers_address(folder),
            self._take,
            lambda: None,
            lambda _, reason: self.lost.append(reason),
            MIB,
        )

    def _take(self, identity: bytes, message: f.FromFrontend) -> None:
        self.frontend_id = identity
        if isinstance(message, f.FrontendHello):
            if self.port.listens(identity):
                self.port.send(identity, f.Welcome(f.PROTOCOL, self.incarnation))
        elif isinstance(message, f.Submit):
            self.jobs += message.jobs
        elif isinstance(message, f.Call):
            self.calls.append(message)

    def answer(self, job: f.SubmittedJob, body: bytes) -> None:
        answer = Answer(job.job_id, AnswerKind.FINAL, 200, "", None, [], body)
        self.port.answer(job.job_id[: f.FRONTEND_ID_BYTES], pack_answers([answer]))
        self.port.flush()


@contextlib.asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, PaperSupervisor, Path]]:
    # Short: the name of a Unix socket has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="stoker-", dir="/tmp") as name:
        folder = Path(name)
        supervisor = PaperSupervisor(folder, b"first---")
        link = Link(folder)
        await link.start()
        await link.wait_connected(DEADLINE_S)
        try:
            yield link, supervisor, folder
        finally:
            await link.close()
            supervisor.port.close()


def ask(link: Link, deadline_s: float = 60.0) -> Pending:
    return link.submit("m", None, MonotonicClock().now() + deadline_s, 0, b"\x90")


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.002)


async def let_go(supervisor: PaperSupervisor) -> None:
    """As when a frontend has not read for very long: more waits for it than may."""
    for _ in range(16):
        supervisor.port.send(supervisor.frontend_id, f.Answers([bytes(MIB)]))
    assert supervisor.lost


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3 * DEADLINE_S):
            await test()

    asyncio.run(bounded())


def test_answers_find_their_questions() -> None:
    """
    One way there, another way back.
    """

    async def exchange() -> None:
        async with linked() as (link, supervisor, _):
            pending = [ask(link) for _ in range(3)]
            await until(lambda: len(supervisor.jobs) == 3)
            for number, job in reversed(list(enumerate(supervisor.jobs))):
                supervisor.answer(job, b"%d" % number)

            bodies = [(await each.next()).body for each in pending]

        assert bodies == [b"0", b"1", b"2"]

    run(exchange)


def test_successor_is_asked_again_what_its_predecessor_left() -> None:
    """
    The end of the way back tells of a death at once; what is unanswered is
    sent again, and what is submitted meanwhile for the first time.
    """

    async def exchange() -> None:
        async with linked() as (link, first, folder):
            left = ask(link)
            await until(lambda: first.jobs)
            first.port.close()
            await until(lambda: not link._downlink.is_open)  # type: ignore[union-attr]
            meanwhile = ask(link)
            second = PaperSupervisor(folder, b"second--")
            try:
                await until(lambda: len(second.jobs) == 2)
                by_id = {job.job_id: job for job in second.jobs}
                assert by_id[left.job_id].flags & f.JobFlag.SENT_AGAIN
                assert not by_id[meanwhile.job_id].flags & f.JobFlag.SENT_AGAIN
                for job in second.jobs:
                    second.answer(job, job.job_id)

                assert (await left.next()).body == left.job_id
                assert (await meanwhile.next()).body == meanwhile.job_id
            finally:
                second.port.close()

    run(exchange)


def test_supervisor_that_let_go_of_us_owes_no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It lives, and has dropped what it meant to say and to do for us.  Asking it
    the same again could have it done twice; waiting could last for ever.
    """
    monkeypatch.setattr(connections, "MAX_WAITING_BYTES", 4 * MIB)

    async def exchange() -> None:
        async with linked() as (link, supervisor, _):
            before = ask(link)
            call = asyncio.create_task(link.call("register", {}, DEADLINE_S))
            await until(lambda: supervisor.jobs and supervisor.calls)
            await let_go(supervisor)

            with pytest.raises(SupervisorUnavailable) as lost:
                await before.next()
            assert lost.value.retryable
            with pytest.raises(SupervisorUnavailable):
                await call
            after = ask(link)
            await until(lambda: len(supervisor.jobs) == 2)
            supervisor.answer(supervisor.jobs[1], b"heard")

            assert (await after.next()).body == b"heard"
            assert [job.job_id for job in supervisor.jobs] == [before.job_id, after.job_id]

    run(exchange)


def test_what_waits_here_is_asked_when_we_are_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing is sent while no answer could come; it has not failed either.
    """
    monkeypatch.setattr(connections, "MAX_WAITING_BYTES", 4 * MIB)

    async def exchange() -> None:
        async with linked() as (link, supervisor, _):
            await let_go(supervisor)
            await until(lambda: not link._downlink.is_open)  # type: ignore[union-attr]
            meanwhile = ask(link)
            question = asyncio.create_task(link.call("describe", {}, DEADLINE_S))
            await until(lambda: supervisor.jobs and supervisor.calls)
            supervisor.answer(supervisor.jobs[0], b"heard")
            result = f.Result(supervisor.calls[0].call_id, None, "", {"is": "told"})
            supervisor.port.send(supervisor.frontend_id, result)

            assert (await meanwhile.next()).body == b"heard"
            assert await question == {"is": "told"}

    run(exchange)


def test_hello_that_overtakes_what_was_said_before_it_is_understood() -> None:
    """
    Who asks says first where it listens, by another way: the loop may look there later.
    """

    async def exchange() -> None:
        async with linked() as (_, supervisor, folder):
            identity = b"\x01overtak"
            heard = StreamEnd.connect(socket_path(answers_address(folder)))
            await until(lambda: len(supervisor.port._acceptor._strangers) == 1)
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            asks = sockets.connect_dealer(context, frontend_address(folder), identity)
            assert asks.poll(int(DEADLINE_S * 1000), zmq.POLLOUT)

            # From here on the loop does not turn.
            heard.send(codec.encode(f.FrontendListens(f.PROTOCOL, identity)))
            asks.send(codec.encode(f.FrontendHello(f.PROTOCOL, 1)))
            assert supervisor.port._socket.poll(int(DEADLINE_S * 1000), zmq.POLLIN)
            supervisor.port._reader._drain()

            assert codec.decode_to_frontend(heard.receive()) == f.Welcome(f.PROTOCOL, b"first---")
            asks.close(0)
            context.term()
            heard.close()

    run(exchange)


def test_frontend_for_whom_there_is_no_room_is_taken_when_there_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    Every crowd has a bound; reaching it is said once, and is not for ever.
    """
    monkeypatch.setattr(frontend_port, "MAX_LISTENERS", 1)

    async def exchange() -> None:
        async with linked() as (first, _, folder):
            second = Link(folder)
            await second.start()
            with pytest.raises(SupervisorUnavailable):
                await second.wait_connected(0.2)
            assert capfd.readouterr().err.count("no more frontends are taken") == 1

            await first.close()
            await second.wait_connected(DEADLINE_S)

            assert second.is_connected
            await second.close()

    run(exchange)


def test_frontend_that_leaves_is_missed_at_once() -> None:
    """
    Nobody works on for its clients until it has been silent for long.
    """

    async def exchange() -> None:
        async with linked() as (link, supervisor, _):
            ask(link)
            await until(lambda: supervisor.jobs)
            await link.close()
            await until(lambda: supervisor.lost)

    run(exchange)
