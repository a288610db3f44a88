"""A supervisor's end of the wire, and real worker processes at the other."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stream_end import StreamEnd

from stoker.wire import codec, payloads
from stoker.wire import frames as f
from stoker.wire.lent_bodies import LentFrame
from stoker.wire.loading import LoadSpec

DEADLINE_S = 20.0
TOKEN = b"\x07" * 16
FRONTEND = b"frontend"


def job_id(number: int, frontend: bytes = FRONTEND) -> bytes:
    return frontend + number.to_bytes(8, "big")


def request(
    body: bytes = b"",
    content_type: str = "",
    *,
    headers: list[tuple[str, str]] | None = None,
    request_id: str = "id-0",
    name: str = "body",
) -> bytes:
    block = payloads.header_block([], headers or [])
    return payloads.pack_request(request_id, block, [payloads.Parameter(name, content_type, body)])


def answers_in(frame: f.AnswerFrame) -> list[payloads.Answer]:
    """Of a frame, also of one with bodies in a file that came along."""
    if isinstance(frame, LentFrame):
        with frame.opened() as file:
            return payloads.unpack_answers(frame.frame, file)
    assert isinstance(frame, bytes)
    return payloads.unpack_answers(frame)


class Answered:
    """What came back for one batch: answers by job number, and the replies."""

    def __init__(self, replies: list[f.Reply]) -> None:
        self.replies = replies
        self.by_reply = [
            [answer for group in reply.groups for answer in answers_in(group.frame)]
            for reply in replies
        ]
        self.all = [answer for answers in self.by_reply for answer in answers]

    def of(self, number: int, frontend: bytes = FRONTEND) -> list[payloads.Answer]:
        return [answer for answer in self.all if answer.job_id == job_id(number, frontend)]

    def one(self, number: int = 0) -> payloads.Answer:
        (answer,) = self.of(number)
        return answer

    def error_code(self, number: int = 0) -> str:
        answer = self.one(number)
        assert answer.error is not None, answer
        return answer.error.code


class WorkerPeer:
    """One worker process and the socket it talks to."""

    def __init__(
        self, folder: Path, listener: socket.socket, process: subprocess.Popen[bytes]
    ) -> None:
        self._folder = folder
        self._listener = listener
        self._end: StreamEnd | None = None
        self.process = process
        self._next_batch = 1
        self._replies: list[f.Reply] = []

    @property
    def end(self) -> StreamEnd:
        """Ours of the connection, once the worker has made it."""
        if self._end is None:
            self._listener.settimeout(DEADLINE_S)
            self._end = StreamEnd(self._listener.accept()[0])
        return self._end

    def receive(self) -> f.FromWorker:
        try:
            return codec.decode_from_worker(self.end.receive(), self.end.handles)
        except (TimeoutError, EOFError):
            raise AssertionError(f"nothing from the worker; stderr:\n{self.output()[1]}") from None

    def send(self, message: f.ToWorker) -> None:
        self.end.send(codec.encode(message))

    def close(self) -> None:
        self._listener.close()
        if self._end is not None:
            self._end.close()

    def load(self, spec: LoadSpec) -> f.Loaded | f.LoadFailed:
        hello = self.receive()
        assert isinstance(hello, f.WorkerHello)
        self.hello = hello
        self.send(f.Load(spec.to_wire()))
        outcome = self.receive()
        assert isinstance(outcome, (f.Loaded, f.LoadFailed))
        return outcome

    def submit(self, *batches: list[bytes], frontend: bytes = FRONTEND) -> list[int]:
        """Send batches of payloads in one Work; returns their ids."""
        numbered = []
        for batch in batches:
            jobs = [f.WorkJob(job_id(i, frontend), payload) for i, payload in enumerate(batch)]
            numbered.append(f.WorkBatch(self._next_batch, jobs))
            self._next_batch += 1
        self.send(f.Work(numbered))
        return [batch.batch_id for batch in numbered]

    def next_reply(self) -> f.Reply:
        if not self._replies:
            message = self.receive()
            assert isinstance(message, f.Replies)
            self._replies += message.replies
        return self._replies.pop(0)

    def answered(self) -> Answered:
        """Everything up to the end of the batch in hand."""
        replies = [self.next_reply()]
        while not replies[-1].is_last:
            replies.append(self.next_reply())
        return Answered(replies)

    def ask(self, *payloads_: bytes) -> Answered:
        """One batch, answered."""
        self.submit(list(payloads_))
        return self.answered()

    def wait_exit(self, deadline_s: float = DEADLINE_S) -> int:
        return self.process.wait(deadline_s)

    def output(self) -> tuple[str, str]:
        """stdout and stderr so far."""
        out, err = self._folder / "out", self._folder / "err"
        return out.read_text(errors="replace"), err.read_text(errors="replace")

    def wait_output(self, text: str, deadline_s: float = DEADLINE_S) -> str:
        """stderr once it holds `text`."""
        until = time.monotonic() + deadline_s
        while text not in (seen := self.output()[1]):
            assert time.monotonic() < until, f"{text!r} never came; stderr:\n{seen}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.01)
        return seen


@pytest.fixture
def spawn_worker() -> Iterator[Callable[..., WorkerPeer]]:
    """Start workers; all are gone when the test ends."""
    peers: list[WorkerPeer] = []
    with tempfile.TemporaryDirectory(prefix="w-", dir="/tmp") as runtime:

        def spawn(
            *, env: dict[str, str] | None = None, python: list[str] | None = None
        ) -> WorkerPeer:
            folder = Path(runtime, str(len(peers)))
            folder.mkdir()
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(f"{folder}/worker.sock")
            listener.listen()
            command = python or [sys.executable, "-P", "-m", "stoker.worker"]
            with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
                process = subprocess.Popen(
                    [
                        *command,
                        "--worker-id",
                        "9000",
                        "--address",
                        f"unix:{folder}/worker.sock",
                        "--label",
                        "9000 m:1.0",
                    ],
                    env={**os.environ, "STOKER_WORKER_TOKEN": TOKEN.hex(), **(env or {})},
                    stdout=out,
                    stderr=err,
                )
            peers.append(WorkerPeer(folder, listener, process))
            return peers[-1]

        yield spawn
        for peer in peers:
            peer.process.kill()
            peer.process.wait()
            peer.close()


@pytest.fixture
def write_handler(tmp_path: Path) -> Callable[..., str]:
    """Write a module into the model's folder; returns the folder."""

    def write(source: str, name: str = "handler.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return str(tmp_path)

    return write


@pytest.fixture
def serve(
    spawn_worker: Callable[..., WorkerPeer], write_handler: Callable[..., str]
) -> Callable[..., WorkerPeer]:
    """A worker that has loaded `source` and waits for work."""

    def start(source: str, *, env: dict[str, str] | None = None, **spec: Any) -> WorkerPeer:
        folder = write_handler(source)
        spec = {"model": "m", "version": "1.0", "handler": "handler", "model_dir": folder, **spec}
        peer = spawn_worker(env=env)
        outcome = peer.load(LoadSpec(**spec))
        assert isinstance(outcome, f.Loaded), peer.output()[1]
        return peer

    return start


@pytest.fixture
def make_request() -> Callable[..., bytes]:
    return request


@pytest.fixture
def make_job_id() -> Callable[..., bytes]:
    return job_id
