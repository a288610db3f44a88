"""A frontend as clients meet it: the real server, the real link, a supervisor made of paper."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
import zmq
from facts import DEADLINE_S, wait_until
from raw_http import RawHttp

from stoker.errors import StokerError
from stoker.frontend.app import Frontend
from stoker.frontend.endpoints import Endpoint
from stoker.frontend.keyring import open_keyring
from stoker.frontend.limits import Limits
from stoker.frontend.listeners import open_socket, plan_listeners
from stoker.frontend.serving import FrontendServer
from stoker.settings import Settings
from stoker.settings.listeners import listener_names
from stoker.wire import codec, frames, payloads, sockets
from stoker.wire.link import Link
from stoker.wire.payloads import Answer, AnswerKind
from stoker.wire.runtime_dir import answers_address, frontend_address
from stoker.wire.stream import pieces, socket_path


@dataclass
class Job:
    """What a fake model gets."""

    job: frames.SubmittedJob
    payload: payloads.RequestPayload

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.payload.headers)

    def final(self, body: bytes, **about: Any) -> Answer:
        return self._answer(AnswerKind.FINAL, body, **about)

    def chunk(self, body: bytes, **about: Any) -> Answer:
        return self._answer(AnswerKind.CHUNK, body, **about)

    def error(self, error: StokerError) -> Answer:
        return Answer(self.job.job_id, AnswerKind.ERROR, 0, "", None, [], b"", error)

    def _answer(
        self,
        kind: AnswerKind,
        body: bytes,
        *,
        status: int = 200,
        reason: str = "",
        content_type: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        return Answer(self.job.job_id, kind, status, reason, content_type, [*headers], body)


#: What a model does with a job: the answers to send now.
Model = Callable[[Job], list[Answer]]
Verb = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class FakeSupervisor:
    """Speaks the wire on real sockets, from a thread of its own."""

    runtime_dir: Path
    models: dict[str, Model] = field(default_factory=dict)
    verbs: dict[str, Verb] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    cancelled: list[bytes] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._context = zmq.Context()
        self._router = sockets.bind_router(self._context, frontend_address(self.runtime_dir))
        path = socket_path(answers_address(self.runtime_dir))
        Path(path).unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._answers: dict[bytes, socket.socket] = {}
        self._wakes = self._context.socket(zmq.PULL)
        self._wakes.bind("inproc://later")
        self._later = self._context.socket(zmq.PUSH)
        self._later.connect("inproc://later")
        self._peer = b""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def send_later(self, *answers: Answer) -> None:
        """From the test: answers for jobs that were left open."""
        self._later.send(payloads.pack_answers(answers))

    def announce_full(self, *queues: frames.FullQueue) -> None:
        """From the test: these queues have taken their last job."""
        self._later.send(codec.encode(frames.Full([*queues])), zmq.SNDMORE)
        self._later.send(b"full")

    def retry(self, job: Job, attempts: int) -> None:
        """From a model: so many workers had the job and did not answer."""
        retried = frames.RetriedJob(job.job.job_id, attempts)
        self._send(frames.Retried([retried]))

    def close(self) -> None:
        self._later.send(b"")
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        self._context.destroy(0)
        for end in (self._listener, *self._answers.values()):
            end.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._wakes, zmq.POLLIN)
        poller.register(self._listener, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._wakes in ready:
                frame, *more = self._wakes.recv_multipart()
                if more:
                    for identity in self._answers:
                        self._send_to(identity, frame)
                    continue
                if not frame:
                    return
                # A job id begins with the routing id of whoever submitted it.
                self._peer = payloads.unpack_answers(frame)[0].job_id[: frames.FRONTEND_ID_BYTES]
                self._send(frames.Answers([frame]))
            if self._listener.fileno() in ready:
                self._let_in()
            if self._router in ready:
                self._peer, frame = self._router.recv_multipart()
                self._take(codec.decode_from_frontend(frame))

    def _take(self, message: Any) -> None:
        if isinstance(message, frames.FrontendHello):
            self._send(frames.Welcome(frames.PROTOCOL, b"life-1"))
        elif isinstance(message, frames.Submit):
            for job in message.jobs:
                self._work(Job(job, payloads.unpack_request(job.payload)))
        elif isinstance(message, frames.Cancel):
            self.cancelled += message.job_ids
        elif isinstance(message, frames.Call):
            self._call(message)

    def _work(self, job: Job) -> None:
        self.jobs.append(job)
        model = self.models.get(job.job.model)
        if model is None:
            details = {"model": job.job.model}
            refused = frames.RefusedJob(job.job.job_id, "model_not_found", "", details)
            self._send(frames.Refused([refused]))
            return
        try:
            answers = model(job)
        except StokerError as error:
            refused = frames.RefusedJob(job.job.job_id, error.code, error.message, error.details)
            self._send(frames.Refused([refused]))
            return
        if answers:
            self._send(frames.Answers([payloads.pack_answers(answers)]))

    def _call(self, call: frames.Call) -> None:
        if call.verb == "report":  # of itself, about once a second
            self.reports.append(call.arguments["report"])
            self._send(frames.Result(call.call_id, None, "", {}))
            return
        self.calls.append((call.verb, call.arguments))
        try:
            value = self.verbs[call.verb](call.arguments)
        except StokerError as error:
            self._send(frames.Result(call.call_id, error.code, error.message, error.details))
        else:
            self._send(frames.Result(call.call_id, None, "", value))

    def _send(self, message: frames.ToFrontend) -> None:
        self._send_to(self._peer, codec.encode(message))

    def _let_in(self) -> None:
        accepted, _ = self._listener.accept()
        (size,) = struct.unpack("!I", accepted.recv(4, socket.MSG_WAITALL))
        listens = codec.decode_from_listener(accepted.recv(size, socket.MSG_WAITALL))
        self._answers[listens.frontend_id] = accepted

    def _send_to(self, identity: bytes, frame: bytes) -> None:
        if identity not in self._answers:
            self._let_in()
        with contextlib.suppress(OSError):
            self._answers[identity].sendall(b"".join(pieces(frame)))


@dataclass
class Answered:
    """One HTTP answer, with nothing hidden."""

    status_line: str
    headers: list[tuple[str, str]]
    body: bytes
    #: The server closed the connection after it.
    is_closed: bool = False

    @property
    def status(self) -> int:
        return int(self.status_line.split(" ")[1])

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.headers]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client(RawHttp):
    """One that asks and gives answers."""

    def request(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Answered:
        lines = [f"{method} {target} HTTP/1.1", "Host: test"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return self.read(has_body=method != "HEAD")

    def read(self, *, has_body: bool = True) -> Answered:
        answered = Answered(*self.take_head(), b"")
        if not has_body or answered.status in (100, 204, 304):
            return answered
        if answered.header("transfer-encoding") == "chunked":
            answered.body = b"".join(self.read_chunks())
        else:
            answered.body = self.read_exactly(int(answered.header("content-length") or 0))
        if answered.header("connection") == "close":
            answered.is_closed = self.read_rest() == b""
        return answered


class RunningFrontend:
    """The server on a loop of its own thread."""

    def __init__(
        self,
        settings: Settings,
        limits: Limits | None = None,
        endpoints: Sequence[Endpoint] = (),
    ) -> None:
        listeners = plan_listeners(settings)
        mode = int(settings.unix_socket_mode, 8)
        self.sockets = [open_socket(listener.address, mode) for listener in listeners]
        called = listener_names(
            [(listener.dialect, [role.value for role in listener.roles]) for listener in listeners]
        )
        self.ports = {
            name: bound.getsockname()
            for bound, names in zip(self.sockets, called, strict=True)
            for name in names
        }
        link = Link(settings.runtime_dir)
        keyring = open_keyring(settings)
        self.frontend = Frontend(
            settings, listeners, link, limits, keyring=keyring, endpoints=endpoints
        )
        self.server = FrontendServer(self.frontend, drain_timeout_s=5)
        self._clients: list[Client] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(lambda: self.server.is_listening and link.is_connected, "frontend is connected")

    def _run(self) -> None:
        uvloop.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.server.serve(self.sockets)

    def client(self, role: str = "inference") -> Client:
        where = self.ports[role]
        family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
        client = Client(where, family)
        self._clients.append(client)
        return client

    def request(self, role: str, method: str, target: str, *rest: Any, **more: Any) -> Answered:
        """One request on a connection of its own."""
        client = self.client(role)
        try:
            return client.request(method, target, *rest, **more)
        finally:
            client.close()

    def ask_to_stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.server.stop)

    def wait_stopped(self) -> None:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        self.ask_to_stop()
        self.wait_stopped()


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """Sockets need short paths."""
    folder = Path(tempfile.mkdtemp(prefix="stoker-http-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def supervisor_of_module(short_folder: Path) -> Iterator[FakeSupervisor]:
    folder = short_folder / os.urandom(4).hex()
    folder.mkdir(mode=0o700)
    supervisor = FakeSupervisor(folder)
    yield supervisor
    supervisor.close()


@pytest.fixture
def supervisor(supervisor_of_module: FakeSupervisor) -> FakeSupervisor:
    """The module's supervisor, with nothing known and nothing remembered."""
    for memory in ("models", "verbs", "jobs", "calls", "cancelled", "reports"):
        getattr(supervisor_of_module, memory).clear()
    return supervisor_of_module


@pytest.fixture(scope="module")
def make_settings(supervisor_of_module: FakeSupervisor) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        nowhere = "http://127.0.0.1:0"
        folder = supervisor_of_module.runtime_dir
        wanted = {
            "inference_address": nowhere,
            "management_address": nowhere,
            "metrics_address": nowhere,
            "runtime_dir": folder,
            **changes,
        }
        return Settings(**wanted)

    return make


@pytest.fixture(scope="module")
def start_for_module(make_settings: Callable[..., Settings]) -> Iterator[Callable[..., Any]]:
    """A frontend with settings of its own, for all tests of a module."""
    started: list[RunningFrontend] = []

    def start(**changes: Any) -> RunningFrontend:
        started.append(RunningFrontend(make_settings(**changes)))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture(scope="module")
def frontend_of_module(start_for_module: Callable[..., RunningFrontend]) -> RunningFrontend:
    return start_for_module()


@pytest.fixture
def frontend(frontend_of_module: RunningFrontend, supervisor: FakeSupervisor) -> RunningFrontend:
    """A frontend with default settings and a clean supervisor."""
    # An earlier test may have filled a queue of the same name.
    frontend_of_module.frontend._lanes.closed.clear()
    return frontend_of_module


@pytest.fixture
def start_frontend(
    make_settings: Callable[..., Settings], supervisor: FakeSupervisor
) -> Iterator[Callable[..., RunningFrontend]]:
    """A frontend with settings or limits of its own."""
    started: list[RunningFrontend] = []

    def start(
        limits: Limits | None = None, own: Sequence[Endpoint] = (), **changes: Any
    ) -> RunningFrontend:
        started.append(RunningFrontend(make_settings(**changes), limits, own))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def echo(supervisor: FakeSupervisor) -> str:
    """The name of a model that answers with its last parameter."""
    supervisor.models["echo"] = lambda job: [
        job.final(job.payload.parameters[-1].body if job.payload.parameters else b"")
    ]
    return "echo"


@pytest.fixture
def manage(frontend: RunningFrontend, supervisor: FakeSupervisor) -> Callable[..., Answered]:
    """Send a management request; the verb answers `outcome`, or raises it."""

    def send(method: str, target: str, verb: str, outcome: Any, *rest: Any) -> Answered:
        def answer(arguments: dict[str, Any]) -> dict[str, Any]:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        supervisor.verbs[verb] = answer
        return frontend.request("management", method, target, *rest)

    return send


@pytest.fixture
def record() -> Callable[..., dict[str, Any]]:
    """What the supervisor says of one version; the appendix's (A5)."""

    def make(**changes: Any) -> dict[str, Any]:
        return {
            "model": "demo",
            "version": "1.0",
            "url": "demo.mar",
            "engine": "Torch",
            "runtime": "python",
            "min_workers": 2,
            "max_workers": 2,
            "batch_size": 1,
            "max_batch_delay_s": 0.1,
            "response_timeout_s": 120.0,
            "startup_timeout_s": 120.0,
            "max_retry_timeout_s": 300.0,
            "client_timeout_s": 0.0,
            "parallel_type": "",
            "parallel_level": 0,
            "device_type": "cpu",
            "device_ids": [],
            "is_default": True,
            "loaded_at_startup": False,
            "status": "Healthy",
            "failure": None,
            "workers": [
                {
                    "id": 9000,
                    "started_at": 1727876693.034,
                    "state": "ready",
                    "memory_bytes": 0,
                    "pid": 4711,
                    "gpu_id": None,
                    "gpu_usage": "N/A",
                    "restarts": 0,
                }
            ],
            "queue": {"capacity": 100, "pending": 0},
            **changes,
        }

    return make
