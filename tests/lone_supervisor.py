"""The real supervisor process, alone, with frontends that we play: well and badly."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import zmq
from facts import DEADLINE_S, wait_until
from stream_end import StreamEnd

from stoker.wire import codec, payloads
from stoker.wire import frames as f
from stoker.wire.runtime_dir import answers_address, frontend_address, worker_address
from stoker.wire.sockets import connect_dealer
from stoker.wire.stream import socket_path

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


class LoneSupervisor:
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
        self._spawned: list[subprocess.Popen[bytes]] = []
        self.process = self.spawn()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Another one in the same place, too; `destroy` ends them all."""
        with self._log.open("ab") as log:
            spawned = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stderr=log, env=self._environ
            )
        self._spawned.append(spawned)
        return spawned

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
        for process in self._spawned:
            process.terminate()  # harmless when it has ended
            try:
                process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.home)
