"""Promise 10: frames that we did not make cost their sender its hearing, and nobody anything else.

The socket lies in a folder that only our user may open, so these are mistakes
and stolen accounts rather than strangers; the supervisor trusts them as little.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import zmq
from facts import wait_until
from live_server import HANDLERS, Server
from stream_end import StreamEnd

from stoker.wire import codec, frames
from stoker.wire.runtime_dir import answers_address, frontend_address
from stoker.wire.stream import socket_path

# How much piles up at once, and so what is kept of it, is a matter of who else computes.
pytestmark = pytest.mark.alone

MIB = 1 << 20


class Stranger:
    """Somebody else who asks the supervisor as frontends do, with frames of its own making."""

    def __init__(self, server: Server) -> None:
        self._context = zmq.Context()
        self.identity = b"\x01" + os.urandom(7)
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, self.identity)
        self._socket.setsockopt(zmq.SNDTIMEO, 5000)
        self._answers = StreamEnd.connect(socket_path(answers_address(server.runtime_dir)))
        listens = frames.FrontendListens(frames.PROTOCOL, self.identity)
        self._answers.send(codec.encode(listens))
        self._socket.connect(frontend_address(server.runtime_dir))

    def send(self, *frame: bytes) -> None:
        self._socket.send_multipart(frame)

    def job(self, **about: Any) -> frames.SubmittedJob:
        wanted = {
            "job_id": self.identity + os.urandom(8),
            "model": "echo",
            "version": None,
            "deadline": time.monotonic() + 60,
            "flags": 0,
            "payload": b"\x90",
        }
        return frames.SubmittedJob(**{**wanted, **about})

    def close(self) -> None:
        self._context.destroy(linger=1000)
        self._answers.close()


@contextlib.contextmanager
def stranger(server: Server) -> Iterator[Stranger]:
    made = Stranger(server)
    try:
        yield made
    finally:
        made.close()


def deep(levels: int) -> bytes:
    return b"\x91" * levels + b"\xc0"


FRAMES = {
    "empty": b"",
    "zeros": b"\x00" * 1000,
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "pickle": b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93"
    b"\x94\x8c\x04true\x94\x85\x94R\x94.",
    "deep": deep(100_000),
    "wide": b"\xdd\xff\xff\xff\xff",
    "maps": b"\xdd\x00\x10\x00\x00" + b"\x80" * (1 << 20),
    "a worker's": codec.encode(frames.Loaded({})),
    "an answer": codec.encode(frames.Answers([b"x"])),
    "a large one": msgpack.packb([frames.Kind.SUBMIT.value, b"x" * (8 * MIB)]),
    "an ext type": msgpack.packb([2, msgpack.ExtType(5, b"x" * 100)]),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_that_we_did_not_make(attacked, kind):
    """
    The peer that sends one is not heard any more; nobody else notices.
    """
    dropped = len(attacked.logged("peer dropped"))
    with stranger(attacked) as peer:
        peer.send(FRAMES[kind])
        wait_until(lambda: len(attacked.logged("peer dropped")) > dropped, "it is dropped")
        for _ in range(200):
            peer.send(FRAMES[kind])


def test_frames_larger_than_any_job(attacked):
    """
    They are not even taken in: the supervisor needs no memory for them.
    """
    peak = attacked.supervisor.memory_info().rss
    with stranger(attacked) as peer:
        for _ in range(4):
            with contextlib.suppress(zmq.Again):
                peer.send(b"\x00" * 64 * MIB)
        for _ in range(20):
            assert attacked.predict("echo", b"b").status == 200
            assert attacked.supervisor.memory_info().rss - peak < 64 * MIB


@pytest.mark.parametrize("seed", range(3))
def test_frames_of_ours_with_flipped_bits(attacked, seed):
    """
    300 frames, cut or flipped, each from a peer that was not banned yet.
    """
    rng = random.Random(seed)
    for _ in range(30):
        with stranger(attacked) as peer:
            whole = codec.encode(frames.Submit([peer.job(payload=rng.randbytes(50))]))
            for _ in range(10):
                changed = bytearray(whole)
                for _ in range(rng.randint(1, 3)):
                    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
                peer.send(bytes(changed[: rng.choice((len(changed), rng.randrange(len(changed))))]))

    assert attacked.predict("echo", b"b").status == 200


def test_a_peer_that_plays_a_frontend(attacked):
    """
    It may ask what a frontend may ask, and gets no further: not with jobs of
    others, wild deadlines, verbs that do not exist, or a million models.
    """
    with stranger(attacked) as peer:
        peer.send(codec.encode(frames.FrontendHello(frames.PROTOCOL, 1)))
        for deadline in (float("inf"), -1.0, 1e300):
            peer.send(codec.encode(frames.Submit([peer.job(deadline=deadline)])))
        for flags in (-1, 1 << 40):
            peer.send(codec.encode(frames.Submit([peer.job(flags=flags)])))
        unknown = [peer.job(model=f"{number}" * 20) for number in range(5000)]
        peer.send(codec.encode(frames.Submit(unknown)))
        for arguments in ({}, {"model": 7}, {"model": "x" * 100_000}, {"a": [[[]]]}):
            for verb in ("describe", "register", "scale", "__init__", "no such verb"):
                peer.send(codec.encode(frames.Call(1, verb, arguments)))
        peer.send(codec.encode(frames.Submit([peer.job(job_id=b"\x01" * 16)])))
        wait_until(
            lambda: attacked.logged("peer dropped", reason="a job of another frontend"),
            "it is dropped for the last one",
        )


def test_no_process_that_hears_strangers_can_unpickle(start_server, tmp_path):
    """
    The real `pickle` is not loaded in launcher, supervisor and frontend, and
    importing it gives a module that refuses.  Looked at from inside, at the
    end of their lives: by then they have imported what they use.
    """
    (tmp_path / "sitecustomize.py").write_text(LOOK_AROUND)
    path = os.pathsep.join([str(tmp_path), str(HANDLERS)])
    server = start_server(PYTHONPATH=path, LOOKED=str(tmp_path))
    server.register("echo", "echo:handle")
    assert server.predict("echo", b"b").status == 200
    server.stop()

    seen = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]

    # Of the frontend the master and the process that serves.
    roles = sorted(each.pop("role") for each in seen)
    assert roles == ["frontend", "frontend", "launcher", "supervisor"]
    assert seen == 4 * [{"files": [], "loads": "Fenced", "c": "ModuleNotFoundError"}]


#: Run by every interpreter that the server starts; says what it found when it ends.
LOOK_AROUND = """
import atexit, json, os, sys

def look():
    with open("/proc/self/cmdline", "rb") as file:
        title = file.read().decode().replace("\\0", " ").strip()
    words = title.split()
    # Workers and those that fork them hear nobody but us, and run handlers, which may.
    if words[:1] != ["stoker:"] or words[1] in ("worker", "template", "preload"):
        return
    files = [
        str(getattr(sys.modules.get(name), "__file__", None))
        for name in ("pickle", "_pickle", "cPickle", "cloudpickle", "dill")
        if getattr(sys.modules.get(name), "__file__", None)
    ]
    found = {"role": words[1], "files": files}
    try:
        import pickle
        pickle.loads(b"\\x80\\x04N.")
        found["loads"] = "works"
    except Exception as error:
        found["loads"] = type(error).__name__
    try:
        import _pickle
        found["c"] = "works"
    except Exception as error:
        found["c"] = type(error).__name__
    with open(os.path.join(os.environ["LOOKED"], f"{os.getpid()}.json"), "w") as file:
        json.dump(found, file)

if "LOOKED" in os.environ:
    atexit.register(look)
"""
