"""The real supervisor process, alone, with peers that we play: well and badly."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import psutil
import pytest
import zmq
from facts import DEADLINE_S, wait_until
from stream_end import StreamEnd, framed

from stoker.exit_codes import ExitCode
from stoker.wire import codec, payloads
from stoker.wire import frames as f
from stoker.wire.connections import MAX_STRANGERS
from stoker.wire.runtime_dir import answers_address, frontend_address, worker_address
from stoker.wire.sockets import connect_dealer
from stoker.wire.stream import socket_path

pytestmark = pytest.mark.slow


# Says what it handles, waits at a FIFO when the body names one, and speaks for its worker.
HANDLER = """
import os
import socket

def say(data):
    for fd in range(3, 64):
        try:
            with socket.socket(fileno=os.dup(fd)) as ours:
                if "worker.sock" in ours.getpeername():
                    ours.send(data)
        except (OSError, TypeError):
            pass

def handle(data, context):
    if data is None:
        return None
    for item in data:
        name = item["body"].decode()
        print("handling", name, flush=True)
        if name.startswith("gate"):
            with open(os.path.join(os.environ["GATES"], name), "rb") as gate:
                gate.read()
        if name.startswith("say "):
            say(bytes.fromhex(name[4:]))
    return [item["body"] for item in data]
"""


class FrontendPeer:
    """Plays a frontend: a DEALER to ask by, a stream to be answered on."""

    def __init__(self, context: zmq.Context[Any], runtime_dir: Path) -> None:
        self.identity = b"\x01" + os.urandom(7)
        self._answers_path = socket_path(answers_address(runtime_dir))
        self.listen()
        self._socket = connect_dealer(context, frontend_address(runtime_dir), self.identity)
        self._socket.setsockopt(zmq.SNDTIMEO, int(DEADLINE_S * 1000))
        self._counter = 0

    def listen(self) -> None:
        self.answered_on = wait_until(self._connect, "somebody lets us in")
        self.answered_on.send(codec.encode(f.FrontendListens(f.PROTOCOL, self.identity)))

    def _connect(self) -> StreamEnd | None:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return StreamEnd.connect(self._answers_path)
        return None

    def send(self, message: f.Message) -> None:
        self._socket.send(codec.encode(message))

    def send_raw(self, *parts: bytes) -> None:
        self._socket.send_multipart(parts)

    def close(self) -> None:
        self._socket.close(0)
        self.answered_on.close()

    def greet(self) -> f.Welcome:
        self.send(f.FrontendHello(f.PROTOCOL, os.getpid()))
        return self.expect(f.Welcome)

    def call(self, verb: str, **arguments: Any) -> f.Result:
        self._counter += 1
        self.send(f.Call(self._counter, verb, arguments))
        result = self.expect(f.Result)
        assert result.call_id == self._counter
        return result

    def job(self, body: str, model: str = "m", deadline_s: float = 60.0) -> f.SubmittedJob:
        self._counter += 1
        job_id = self.identity + self._counter.to_bytes(8, "big")
        payload = payloads.pack_request("id", b"", [payloads.Parameter("body", "", body.encode())])
        return f.SubmittedJob(job_id, model, None, time.monotonic() + deadline_s, 0, payload)

    def submit(self, *bodies: str) -> list[bytes]:
        jobs = [self.job(body) for body in bodies]
        self.send(f.Submit(jobs))
        return [job.job_id for job in jobs]

    def answers(self) -> list[payloads.Answer]:
        message = self.expect(f.Answers)
        return [answer for frame in message.frames for answer in payloads.unpack_answers(frame)]

    def expect(self, kind: Any) -> Any:
        message = codec.decode_to_frontend(self.answered_on.receive())
        while isinstance(message, f.Retried) and kind is not f.Retried:
            message = codec.decode_to_frontend(self.answered_on.receive())
        assert isinstance(message, kind), message
        return message


class Supervisor:
    """The process, its folders and its peers."""

    def __init__(self) -> None:
        # Short: the name of a Unix socket has room for 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="stoker-", dir="/tmp"))
        for name in ("run", "cache", "log", "state", "handlers"):
            (self.home / name).mkdir(mode=0o700)
        self.runtime_dir = self.home / "run"
        (self.home / "handlers" / "says.py").write_text(HANDLER)
        self._context: zmq.Context[Any] = zmq.Context()
        self._peers: list[FrontendPeer | StreamEnd] = []
        self._log = self.home / "supervisor.log"
        self._command = [sys.executable, "-P", "-m", "stoker.supervisor", "--log-format", "json"]
        for name, folder in (("runtime", "run"), ("cache", "cache"), ("log", "log")):
            self._command += [f"--{name}-dir", str(self.home / folder)]
        self._command += ["--state-dir", str(self.home / "state"), "--drain-timeout-s", "2"]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("STOKER_", "TS_"))}
        paths = [str(self.home / "handlers"), *filter(None, [inherited.get("PYTHONPATH")])]
        self._environ = {
            **inherited,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "GATES": str(self.home),
        }
        self.process = self.spawn()

    def spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stderr=log, env=self._environ
            )

    def frontend(self) -> FrontendPeer:
        """One that has been welcomed."""
        peer = FrontendPeer(self._context, self.runtime_dir)
        self._peers.append(peer)
        peer.greet()
        return peer

    def listener_peer(self) -> StreamEnd:
        """Somebody at the socket where frontends are answered."""
        peer = StreamEnd.connect(socket_path(answers_address(self.runtime_dir)))
        self._peers.append(peer)
        return peer

    def worker_peer(self) -> StreamEnd:
        """Somebody at the workers' socket."""
        peer = StreamEnd.connect(socket_path(worker_address(self.runtime_dir)))
        self._peers.append(peer)
        return peer

    def logged(self, event: str) -> list[dict[str, Any]]:
        # The last line may be half written.
        whole, _, _ = self._log.read_text().rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if line["event"] == event]

    def register(self, frontend: FrontendPeer, model: str = "m") -> int:
        """A model with one worker that is ready; returns the worker's pid."""
        registered = frontend.call(
            "register", model=model, handler="says:handle", initial_workers=1, synchronous=True
        )
        assert registered.code is None, registered.message
        (record,) = frontend.call("describe", model=model).value["versions"]
        pid: int = record["workers"][0]["pid"]
        return pid

    def connection_count(self, name: str) -> int:
        """Peers at one of its sockets that the supervisor's kernel knows of, welcome or not."""
        path = str(self.runtime_dir / name)
        connections = psutil.Process(self.process.pid).net_connections("unix")
        return sum(connection.laddr == path for connection in connections)

    def handled(self, model: str = "m") -> list[str]:
        log = self.home / "log" / "models" / model / "1.0.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.rpartition("handling ")[2] for line in lines if "handling " in line]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def destroy(self) -> None:
        for peer in self._peers:
            peer.close()
        self._context.term()
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.home)


@pytest.fixture(scope="module")
def supervisor_of_module() -> Iterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    supervisor.destroy()


@pytest.fixture
def supervisor(supervisor_of_module: Supervisor) -> Iterator[Supervisor]:
    """The module's supervisor, without models and still well afterwards."""
    yield supervisor_of_module
    assert supervisor_of_module.process.poll() is None
    frontend = supervisor_of_module.frontend()
    for model in frontend.call("list", limit=100, offset=0).value["models"]:
        assert frontend.call("unregister", model=model["model"]).code is None


@pytest.fixture
def gate(supervisor: Supervisor) -> Iterator[Callable[[], None]]:
    """Lets the handler of a job `gate` go on, once it is there."""
    path = supervisor.home / "gate"
    os.mkfifo(path)

    def let_go() -> None:
        os.close(wait_until(lambda: _open_if_read(path), "a handler waits at the gate"))

    yield let_go
    path.unlink()


def _open_if_read(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    return None


# -- frontends -------------------------------------------------------------------------


def test_every_hello_is_answered_with_the_same_incarnation(supervisor: Supervisor) -> None:
    """
    Frontends notice a restart by another incarnation, and only by that.
    """
    one, other = supervisor.frontend(), supervisor.frontend()

    welcomes = [one.greet(), one.greet(), other.greet()]

    assert len(set(welcomes)) == 1
    assert welcomes[0].protocol == f.PROTOCOL
    assert len(welcomes[0].incarnation) == 8


GARBAGE = [
    (b"",),
    (b"\xc1",),
    (b"GET / HTTP/1.1\r\n\r\n",),
    (random.Random(1).randbytes(64),),
    (b"\xdd\xff\xff\xff\xff",),
    (b"\x91" * 100_000,),
    (msgpack.packb([999]),),
    (msgpack.packb([f.Kind.SUBMIT.value, b"short", "m", None, 1.0, 0, b""]),),
    (msgpack.packb([f.Kind.CALL.value, 1, "list", [1, 2]]),),
    (codec.encode(f.Welcome(1, b"12345678")),),
    (codec.encode(f.FrontendHello(1, 1)), b"and more"),
]


@pytest.mark.parametrize("parts", GARBAGE, ids=lambda parts: repr(parts[0][:12]))
def test_frontend_that_sends_rubbish_is_dropped_alone(
    supervisor: Supervisor, parts: tuple[bytes, ...]
) -> None:
    """
    Design 6: a bad frame drops its peer; the others do not notice.
    """
    good, bad = supervisor.frontend(), supervisor.frontend()
    dropped = len(supervisor.logged("peer dropped"))

    bad.send_raw(*parts)
    bad.send(f.FrontendHello(f.PROTOCOL, 1))
    wait_until(lambda: len(supervisor.logged("peer dropped")) > dropped, "the peer is dropped")

    assert good.call("health").value["is_healthy"] is True
    assert bad.answered_on.has_heard_nothing()
    assert bad.answered_on.is_closed()


RUBBISH_OF_A_LISTENER = {
    "empty frame": framed(b""),
    "rubbish": framed(b"\xc1rubbish"),
    "hello of a worker": framed(codec.encode(f.WorkerHello(f.PROTOCOL, 1, b"\x00" * 16, 1))),
    "no id": framed(codec.encode(f.FrontendListens(f.PROTOCOL, b"short"))),
    "the supervisor's own id": framed(codec.encode(f.FrontendListens(f.PROTOCOL, bytes(8)))),
    "oversized length": b"\xff\xff\xff\xff",
    "length of a long hello": b"\x00\x01\x00\x00",
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "another release": framed(codec.encode(f.FrontendListens(f.PROTOCOL + 1, b"\x01another"))),
}


@pytest.mark.parametrize("data", RUBBISH_OF_A_LISTENER.values(), ids=RUBBISH_OF_A_LISTENER.keys())
def test_rubbish_where_answers_come_from_drops_its_sender_alone(
    supervisor: Supervisor, data: bytes
) -> None:
    """
    Design 6, at the third socket.
    """
    good = supervisor.frontend()
    dropped = len(supervisor.logged("peer dropped"))
    stranger = supervisor.listener_peer()

    stranger.send_raw(data)

    assert stranger.is_closed()
    wait_until(lambda: len(supervisor.logged("peer dropped")) > dropped, "it is logged")
    assert good.call("health").value["is_healthy"] is True


def test_who_says_more_than_that_it_listens_is_dropped(supervisor: Supervisor) -> None:
    """
    The way back is one way; nothing is asked on it, and no more is read.
    """
    good, bad = supervisor.frontend(), supervisor.frontend()
    dropped = len(supervisor.logged("peer dropped"))

    bad.answered_on.send(codec.encode(f.FrontendHello(f.PROTOCOL, 1)))

    assert bad.answered_on.is_closed()
    wait_until(lambda: len(supervisor.logged("peer dropped")) > dropped, "it is logged")
    assert good.call("health").value["is_healthy"] is True


def test_hello_of_who_cannot_be_answered_counts_when_it_can(supervisor: Supervisor) -> None:
    """
    The two ways are not in order; a frontend says hello until it is welcomed.
    """
    good, mute = supervisor.frontend(), supervisor.frontend()
    left = len(supervisor.logged("frontend left"))
    mute.answered_on.close()
    wait_until(lambda: len(supervisor.logged("frontend left")) > left, "it cannot be answered")
    joined = len(supervisor.logged("frontend joined"))
    mute.send(f.FrontendHello(f.PROTOCOL, 1))
    assert good.call("health").value["is_healthy"] is True
    assert len(supervisor.logged("frontend joined")) == joined

    mute.listen()

    assert len(mute.greet().incarnation) == 8


def test_frontend_that_listens_anew_is_answered_there(supervisor: Supervisor, gate: Any) -> None:
    """
    Whoever opened a second way back has given up the first one, and what it
    asked before is not begun any more.
    """
    frontend, other = supervisor.frontend(), supervisor.frontend()
    supervisor.register(frontend)
    frontend.submit("gate", "ahead", *[f"lost{i}" for i in range(5)])
    wait_until(lambda: "gate" in supervisor.handled(), "the first is in hand")
    wait_until(lambda: other.call("statistics").value["jobs"] == 7, "all are accepted")
    first = frontend.answered_on

    frontend.listen()

    assert first.is_closed()
    first.close()
    frontend.greet()
    gate()
    frontend.submit("after")
    # What a worker had already still comes: done, or left undone and so said.
    while frontend.answers()[-1].body != b"after":
        pass
    assert {"lost4", "lost3"}.isdisjoint(supervisor.handled())


def test_frontend_cannot_speak_for_another(supervisor: Supervisor, gate: Any) -> None:
    """
    Job ids begin with their frontend's own id: nobody cancels or sends another's jobs.
    """
    victim, thief = supervisor.frontend(), supervisor.frontend()
    supervisor.register(victim)
    in_hand, queued = victim.submit("gate", "mine")
    dropped = len(supervisor.logged("peer dropped"))

    thief.send(f.Cancel([queued]))
    wait_until(lambda: len(supervisor.logged("peer dropped")) > dropped, "the peer is dropped")
    gate()

    answers = victim.answers()
    while len(answers) < 2:
        answers += victim.answers()
    assert [answer.job_id for answer in answers] == [in_hand, queued]


def test_unknown_verbs_and_arguments_are_answered(supervisor: Supervisor) -> None:
    """
    A newer frontend beside an older supervisor gets errors, not silence.
    """
    frontend = supervisor.frontend()

    results = [
        frontend.call("sing"),
        frontend.call("describe", model=7),
        frontend.call("scale", model="m", min_workers="many", max_workers=1),
        frontend.call("list"),
    ]

    assert {result.code for result in results} <= {"invalid_parameter", "model_not_found"}
    assert frontend.call("health").code is None


def test_jobs_are_answered_once_and_by_the_worker(supervisor: Supervisor) -> None:
    """
    A job that is sent again while it is held is the same job.
    """
    frontend = supervisor.frontend()
    supervisor.register(frontend)
    job = frontend.job("hello")

    frontend.send(f.Submit([job, job]))
    (answer,) = frontend.answers()

    assert (answer.job_id, answer.body) == (job.job_id, b"hello")
    frontend.submit("the next")
    frontend.answers()
    wait_until(lambda: "the next" in supervisor.handled(), "its line is in the log")
    assert supervisor.handled().count("hello") == 1
    assert frontend.call("statistics").value["jobs"] == 0


def test_job_for_nobody_is_refused_with_its_reason(supervisor: Supervisor) -> None:
    """
    The dialect needs code and details to say it in a client's words.
    """
    frontend = supervisor.frontend()
    job = frontend.job("x", model="ghost")

    frontend.send(f.Submit([job]))
    (refused,) = frontend.expect(f.Refused).jobs

    assert (refused.job_id, refused.code) == (job.job_id, "model_not_found")
    assert refused.details == {"model": "ghost"}


def test_jobs_of_a_frontend_that_vanished_are_cancelled(supervisor: Supervisor, gate: Any) -> None:
    """
    Its clients are gone with it: nobody works for them any more.
    """
    vanishing, staying = supervisor.frontend(), supervisor.frontend()
    supervisor.register(staying)
    vanishing.submit("gate")
    wait_until(lambda: "gate" in supervisor.handled(), "the first is in hand")
    vanishing.submit("ahead", *[f"lost{i}" for i in range(5)])
    wait_until(lambda: staying.call("statistics").value["jobs"] == 7, "all are accepted")

    left = len(supervisor.logged("frontend left"))
    vanishing.close()
    wait_until(lambda: len(supervisor.logged("frontend left")) > left, "it is noticed")
    assert staying.call("statistics").value["jobs"] == 0
    gate()
    staying.submit("after")
    staying.answers()

    wait_until(lambda: "after" in supervisor.handled(), "its line is in the log")
    assert {"lost4", "lost3"}.isdisjoint(supervisor.handled())


# -- workers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        lambda pid: f.WorkerHello(f.PROTOCOL, 1, b"\x00" * 16, pid),
        lambda pid: f.WorkerHello(f.PROTOCOL, 999_999, b"\x00" * 16, pid),
        lambda pid: f.WorkerHello(f.PROTOCOL, 1, b"", os.getpid()),
    ],
    ids=["token", "number", "pid"],
)
def test_worker_that_we_did_not_start_is_refused(supervisor: Supervisor, lie: Any) -> None:
    """
    The token proves that we started it; without it there is nothing to load and no work.
    """
    frontend = supervisor.frontend()
    pid = supervisor.register(frontend)
    impostor = supervisor.worker_peer()
    dropped = len(supervisor.logged("peer dropped"))

    impostor.send(codec.encode(lie(pid)))
    wait_until(lambda: len(supervisor.logged("peer dropped")) > dropped, "the peer is dropped")
    frontend.submit("real")

    assert frontend.answers()[0].body == b"real"
    assert impostor.has_heard_nothing()
    assert impostor.is_closed()


HELLO = codec.encode(f.WorkerHello(f.PROTOCOL, 1, b"\x00" * 16, os.getpid()))
RUBBISH_OF_A_WORKER = {
    "empty frame": framed(b""),
    "rubbish": framed(b"\xc1rubbish"),
    "hello of a frontend": framed(codec.encode(f.FrontendHello(1, 1))),
    "order": framed(codec.encode(f.Leave())),
    "no hello": framed(codec.encode(f.Loaded({}))),
    "oversized length": b"\xff\xff\xff\xff",
    "long hello": framed(bytes(5000)),
    "length of a long hello": b"\x00\x01\x00\x00",
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "bits flipped": bytes(byte ^ 0x55 for byte in framed(HELLO)),
    "two frames, the second bad": framed(HELLO) + framed(b"\xc1"),
}


@pytest.mark.parametrize("data", RUBBISH_OF_A_WORKER.values(), ids=RUBBISH_OF_A_WORKER.keys())
def test_rubbish_at_the_workers_socket_drops_its_sender_alone(
    supervisor: Supervisor, data: bytes
) -> None:
    """
    A worker runs other people's code; what it sends is read with care.
    """
    frontend = supervisor.frontend()
    supervisor.register(frontend)
    dropped = len(supervisor.logged("peer dropped"))
    stranger = supervisor.worker_peer()

    stranger.send_raw(data)

    assert stranger.is_closed()
    wait_until(lambda: len(supervisor.logged("peer dropped")) > dropped, "it is logged")
    frontend.submit("real")
    assert frontend.answers()[0].body == b"real"


@pytest.mark.parametrize(
    "lie",
    [b"\xff\xff\xff\xff", framed(b"\xc1")],
    ids=["length", "frame"],
)
def test_worker_that_lies_is_replaced_and_nobody_else_notices(
    supervisor: Supervisor, lie: bytes
) -> None:
    """
    User code can reach its worker's socket; it harms its own worker and nobody else.
    """
    frontend = supervisor.frontend()
    pid = supervisor.register(frontend)

    (job_id,) = frontend.submit("say " + lie.hex())
    (refused,) = frontend.expect(f.Refused).jobs
    frontend.submit("real")

    assert (refused.job_id, refused.code) == (job_id, "worker_died")
    assert frontend.answers()[0].body == b"real"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_random_bytes_at_the_workers_socket_are_survived(supervisor: Supervisor) -> None:
    """
    Whatever stands there, cut off anywhere: an end, not an exception, not memory.
    """
    frontend = supervisor.frontend()
    supervisor.register(frontend)
    before = psutil.Process(supervisor.process.pid).memory_info().rss
    random = Random(7)

    for size in [1, 2, 3, 4, 5, 64, 4096, 100_000] * 4:
        stranger = supervisor.worker_peer()
        with contextlib.suppress(ConnectionError):
            stranger.send_raw(random.randbytes(size))
        stranger.close()
    for cut in range(1, len(framed(HELLO))):
        stranger = supervisor.worker_peer()
        stranger.send_raw(framed(HELLO)[:cut])
        stranger.close()

    assert frontend.call("health").value["is_healthy"] is True
    assert not supervisor.logged("event failed")
    assert psutil.Process(supervisor.process.pid).memory_info().rss - before < 32 << 20


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_thousands_of_silent_connections_leave_room_for_workers(supervisor: Supervisor) -> None:
    """
    Who says nothing keeps no place from a worker that has something to say.
    """
    frontend = supervisor.frontend()

    strangers = [supervisor.worker_peer() for _ in range(2000)]
    supervisor.register(frontend)

    assert supervisor.connection_count("worker.sock") <= MAX_STRANGERS + 2
    assert strangers[0].is_closed()
    frontend.submit("real")
    assert frontend.answers()[0].body == b"real"


# -- the process -----------------------------------------------------------------------


def test_second_supervisor_in_the_same_directory_says_so_and_ends(supervisor: Supervisor) -> None:
    """
    It would steal the sockets silently; the first goes on serving.
    """
    second = supervisor.spawn()

    assert second.wait(DEADLINE_S) == ExitCode.ALREADY_RUNNING
    (line,) = supervisor.logged("cannot start")
    assert "Another supervisor is running" in line["reason"]
    assert supervisor.frontend().call("health").code is None


def test_stop_ends_workers_refuses_calls_and_removes_its_sockets() -> None:
    """
    An orderly stop is exit code 0 and leaves only the lock.
    """
    supervisor = Supervisor()
    try:
        frontend = supervisor.frontend()
        pid = supervisor.register(frontend)

        assert supervisor.stop() == ExitCode.OK

        assert [path.name for path in supervisor.runtime_dir.iterdir()] == ["supervisor.lock"]
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    finally:
        supervisor.destroy()
