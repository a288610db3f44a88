"""Answers that nobody waits for: kept until somebody asks for them with a token.

One file per result below the runtime directory, so that every frontend process
finds it, whichever took the request:

    [length:u32 | row]*      row = packed [pid, start_ticks] of who keeps it, then
                             [kind, status, reason, content_type?, headers[k, v, ...], body]*

It is only ever appended to, by one process; a reader takes the whole rows there
are.  A file whose keeper is gone and that has no last row is lost, and says so.
Bounded in number, bytes and age.

Source: contracts/djl-serving.md 3.6.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from stoker.errors import ProtocolError, TooManyRequests
from stoker.process_start import start_ticks
from stoker.wire import packing
from stoker.wire.payloads import Answer, AnswerKind

TOKEN_CHARACTERS: Final = 36
FOLDER: Final = "results"
#: Looking for what is too old need not be done every second.
SWEEP_S: Final = 10.0
_TOKEN: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LENGTH: Final = struct.Struct(">I")
_LOST: Final = "The result was lost when the server was restarted."
_TOO_MUCH: Final = "The result takes more room than there is for results that are kept."


@dataclass(frozen=True, slots=True)
class Found:
    """What is there of a result.

    Attributes:
        pieces: In order; all of them so far.
        has_ended: No more will come.
    """

    pieces: list[Answer]
    has_ended: bool


class KeptResult:
    """One result while it comes."""

    def __init__(self, token: str, file: BinaryIO, results: Results) -> None:
        self.token = token
        self._file = file
        self._results = results
        self.has_ended = False
        self._write([os.getpid(), start_ticks(os.getpid())])

    def put(self, answer: Answer) -> None:
        """A piece, or the last of them; what finds no room is a failed result."""
        if self.has_ended:
            return
        if not self._results.take(len(answer.body)):
            answer = failed(_TOO_MUCH)
        flat = [text for header in answer.headers for text in header]
        self._write(
            [
                answer.kind.value,
                answer.status,
                answer.reason,
                answer.content_type,
                flat,
                answer.body,
            ]
        )
        if answer.kind is AnswerKind.FINAL:
            self.close()

    def fail(self, message: str) -> None:
        """It ends with a status of 500 and this text (3.6)."""
        self.put(failed(message))

    def close(self) -> None:
        self.has_ended = True
        self._file.close()

    def _write(self, row: list[Any]) -> None:
        packed = packing.pack(row)
        # In one write: who reads meanwhile sees all of it or a row that is cut off.
        self._file.write(_LENGTH.pack(len(packed)) + packed)
        self._file.flush()


class Results:
    """The results of one server.

    Args:
        keep_s: How long a result may lie there untouched.
    """

    def __init__(self, folder: Path, limit: int, limit_bytes: int, keep_s: float) -> None:
        self._folder = folder
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._keep_s = keep_s
        self._taken_bytes = 0
        self._swept_at = float("-inf")

    def begin(self) -> KeptResult:
        """Raises TooManyRequests: As many are kept as may be."""
        self._sweep(time.time())
        count, self._taken_bytes = self._measure()
        if count >= self._limit or self._taken_bytes >= self._limit_bytes:
            raise TooManyRequests(
                "Too many results are kept; fetch some, or try again later.", limit=self._limit
            )
        self._folder.mkdir(mode=0o700, exist_ok=True)
        token = str(uuid.uuid4())
        fd = os.open(self._folder / token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        return KeptResult(token, os.fdopen(fd, "wb"), self)

    def take(self, size: int) -> bool:
        """Room for so many bytes more, or none."""
        if self._taken_bytes + size > self._limit_bytes:
            return False
        self._taken_bytes += size
        return True

    def find(self, token: str) -> Found | None:
        """What is there of a result; None if nothing ever was, or not any more."""
        if not _TOKEN.fullmatch(token):
            return None
        try:
            content = (self._folder / token).read_bytes()
        except OSError:
            return None
        rows = _rows(content)
        if not rows:
            return Found([], has_ended=False)
        (pid, ticks), *pieces = rows
        answers = [_answer(row) for row in pieces]
        has_ended = bool(answers) and answers[-1].kind is AnswerKind.FINAL
        if not has_ended and start_ticks(pid) != ticks:
            return Found([*answers, failed(_LOST)], has_ended=True)
        return Found(answers, has_ended)

    def forget(self, token: str) -> None:
        if _TOKEN.fullmatch(token):
            with contextlib.suppress(OSError):
                (self._folder / token).unlink()

    def _measure(self) -> tuple[int, int]:
        sizes = [entry.stat().st_size for entry in self._entries()]
        return len(sizes), sum(sizes)

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._folder) as entries:
                return list(entries)
        except FileNotFoundError:
            return []

    def _sweep(self, now: float) -> None:
        if now < self._swept_at + SWEEP_S:
            return
        self._swept_at = now
        for entry in self._entries():
            with contextlib.suppress(OSError):
                if entry.stat().st_mtime + self._keep_s < now:
                    os.unlink(entry.path)


def remove_results(runtime_dir: Path) -> None:
    """All of them: no process will add to them or ask for them."""
    shutil.rmtree(runtime_dir / FOLDER, ignore_errors=True)


def failed(message: str) -> Answer:
    body = message.encode()
    return Answer(b"", AnswerKind.FINAL, 500, "", "text/plain", [], body)


def _rows(content: bytes) -> list[list[Any]]:
    """The rows that are whole."""
    rows, at = [], 0
    while at + _LENGTH.size <= len(content):
        (length,) = _LENGTH.unpack_from(content, at)
        end = at + _LENGTH.size + length
        if end > len(content):
            break
        try:
            rows.append(packing.unpack(content[at + _LENGTH.size : end]))
        except ProtocolError:
            break
        at = end
    return rows


def _answer(row: list[Any]) -> Answer:
    kind, status, reason, content_type, flat, body = row
    headers = list(zip(flat[::2], flat[1::2], strict=True))
    return Answer(b"", AnswerKind(kind), status, reason, content_type, headers, body)
