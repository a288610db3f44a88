"""Clients of a soak: what each one asked, what became of it, and what it never should have got.

Every request carries words of its own and every answer must carry them back, so
an answer that belongs to another request, or comes twice, is seen.  One thread
is one client with one connection; it goes on until it is told to stop.
"""

from __future__ import annotations

import enum
import json
import random
import select
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from raw_http import RawHttp

#: What is longer than the server's deadline and this is lost.
PATIENCE_S = 10.0
LARGE_BYTES = 300_000


class Fate(enum.Enum):
    """What became of one request."""

    ANSWERED = "answers"
    TYPED_ERROR = "typed errors"
    #: Pieces had been sent when what made them died: only the end of the connection can say so.
    BROKEN_OFF = "streams broken off"
    #: The connection ended without an answer while the process at its other end was killed.
    CUT = "cut with their frontend"
    LOST = "lost"
    #: An answer that is not this request's, or more than one.
    DUPLICATE = "duplicates delivered"


class _BrokenOff(EOFError):
    """Between the head of a stream and its last piece."""


@dataclass(frozen=True)
class Question:
    """One request; `is_answer` looks at a 200's body."""

    model: str
    body: bytes
    is_answer: Callable[[bytes], bool]
    content_type: str = "application/octet-stream"


def echo(model: str, chance: random.Random) -> Question:
    words = b"%032x" % chance.getrandbits(128)
    return Question(model, words, words.__eq__)


def large(model: str, chance: random.Random) -> Question:
    """Through shared memory, there and back."""
    body = chance.randbytes(LARGE_BYTES)
    return Question(model, body, body.__eq__)


def stream(model: str, chance: random.Random) -> Question:
    words = f"{chance.getrandbits(64):016x}"
    pieces = [f"{words}-{number} " for number in range(4)]
    body = json.dumps({"pieces": [[piece, None] for piece in pieces], "last": "end"}).encode()
    expected = "".join([*pieces, "end"]).encode()
    return Question(model, body, expected.__eq__, "application/json")


def risky(model: str, chance: random.Random) -> Question:
    """One in fifty kills its worker, and with it those beside it in its batch."""
    words = b"%032x" % chance.getrandbits(128)
    body = b"die segv " + words if chance.random() < 0.02 else b"live " + words
    return Question(model, body, body.__eq__)


@dataclass
class Tally:
    """Of all clients."""

    fates: Counter[Fate] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    #: What must not happen, in words; the first few.
    complaints: list[str] = field(default_factory=list)
    answered_at: float = field(default_factory=time.monotonic)
    #: Between two good answers, whoever got them: length and when it ended.
    max_pause: tuple[float, float] = (0.0, 0.0)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fate: Fate, about: str = "") -> None:
        now = time.monotonic()
        with self.lock:
            self.fates[fate] += 1
            if fate is Fate.ANSWERED:
                self.max_pause = max(self.max_pause, (now - self.answered_at, now))
                self.answered_at = now
            elif fate is Fate.TYPED_ERROR:
                self.errors[about] += 1
            elif fate not in (Fate.CUT, Fate.BROKEN_OFF) and len(self.complaints) < 20:
                self.complaints.append(f"{fate.value}: {about}")


class Client(threading.Thread):
    """Asks, checks, asks again.

    Args:
        was_cut: Whether a process that held connections was killed since the instant given.
    """

    def __init__(
        self,
        number: int,
        seed: int,
        address: Callable[[], str],
        questions: list[tuple[str, Callable[[str, random.Random], Question]]],
        deadline_s: float,
        was_cut: Callable[[float], bool],
        tally: Tally,
    ) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self._chance = random.Random(f"{seed} {number}")
        self._address = address
        self._questions = questions
        self._patience_s = deadline_s + PATIENCE_S
        self._was_cut = was_cut
        self._tally = tally
        self._connection: RawHttp | None = None
        self._is_over = threading.Event()

    def leave(self) -> None:
        self._is_over.set()

    def run(self) -> None:
        while not self._is_over.is_set():
            model, ask = self._chance.choice(self._questions)
            self._ask(ask(model, self._chance))
        self._hang_up()

    def _ask(self, question: Question) -> None:
        started = time.monotonic()
        about = question.model
        try:
            connection = self._connect()
            if connection is None:
                self._is_over.wait(0.02)  # nobody listens: nothing was accepted
                return
            head = f"POST /predictions/{question.model} HTTP/1.1\r\nhost: soak\r\n"
            head += f"content-type: {question.content_type}\r\n"
            head += f"content-length: {len(question.body)}\r\n\r\n"
            connection.send(head.encode() + question.body)
            status, body, is_kept = self._take(connection)
            took_s = time.monotonic() - started
            if status == 200:
                is_ours = question.is_answer(body)
                self._tally.add(
                    Fate.ANSWERED if is_ours else Fate.DUPLICATE, f"{about}: {body[:80]!r}"
                )
            else:
                self._take_error(status, body, about)
            if took_s > self._patience_s:
                self._tally.add(Fate.LOST, f"{about}: answered after {took_s:.1f} s")
            if not is_kept:
                self._hang_up()
            elif select.select([connection.socket], [], [], 0)[0] and not connection.is_ended():
                self._tally.add(Fate.DUPLICATE, f"{about}: bytes after the answer")
                self._hang_up()
        except (OSError, EOFError) as error:
            self._hang_up()
            if isinstance(error, _BrokenOff):
                fate = Fate.BROKEN_OFF
            else:
                fate = Fate.CUT if self._was_cut(started) else Fate.LOST
            self._tally.add(fate, f"{about} after {time.monotonic() - started:.2f} s: {error!r}")

    def _take_error(self, status: int, body: bytes, about: str) -> None:
        try:
            error = json.loads(body)
            kind = str(error["type"])
        except (ValueError, KeyError, AttributeError):
            self._tally.add(Fate.LOST, f"{about}: {status} without a type: {body[:80]!r}")
            return
        self._tally.add(Fate.TYPED_ERROR, f"{status} {kind} ({about})")
        if status == 503:
            self._is_over.wait(0.01)

    def _take(self, connection: RawHttp) -> tuple[int, bytes, bool]:
        status_line, pairs = connection.take_head()
        headers = {name.lower(): value for name, value in pairs}
        if headers.get("transfer-encoding") == "chunked":
            try:
                body = b"".join(connection.read_chunks())
            except (EOFError, ConnectionResetError) as error:
                raise _BrokenOff(*error.args) from error
        else:
            body = connection.read_exactly(int(headers.get("content-length", "0")))
        is_kept = headers.get("connection", "").lower() != "close"
        return int(status_line.split(" ", 2)[1]), body, is_kept

    def _connect(self) -> RawHttp | None:
        if self._connection is None:
            where = urlsplit(self._address())
            try:
                self._connection = RawHttp((where.hostname, where.port))
            except ConnectionRefusedError:
                return None
            self._connection.socket.settimeout(self._patience_s)
        return self._connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
