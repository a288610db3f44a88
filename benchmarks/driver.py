"""A closed-loop HTTP/1.1 load driver, cheap enough not to be what is measured.

Each connection sends one fixed request, waits for the whole answer, and sends
the next.  Requests are bytes made once; answers are only framed, never parsed
further.  It runs as a process of its own, samples the server's CPU at the two
ends of its window, and prints one JSON object.

    python benchmarks/driver.py http://127.0.0.1:8080/predictions/echo \\
        --connections 64 --duration 10 --body-bytes 100 --pid SERVER

An answer is framed by content-length or by chunks:

    HTTP/1.1 200 OK | headers | empty line | content-length bytes
    HTTP/1.1 200 OK | headers | empty line | [size | bytes]* | 0 | empty line
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from process_tree import CpuSample, sample_cpu

#: An answer's headers may be this long before we call the server broken.
MAX_HEADER_BYTES = 64 * 1024
#: How long after the window answers may still come in.
GRACE_S = 30.0
#: A server that hangs up or does not accept is asked again after this, not at
#: once; one that said `connection: close` with its answer at once.
RECONNECT_S = 0.05
#: Shares of the answers whose latencies are kept, for distributions.
QUANTILES = (*(n / 50 for n in range(50)), 0.99, 0.995, 0.999, 1.0)


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, how often, for how long."""

    url: str
    connections: int
    duration_s: float
    warmup_s: float = 1.0
    body: bytes = b""
    content_type: str = "application/octet-stream"

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80

    def request(self) -> bytes:
        parts = urlsplit(self.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = (
            f"POST {target} HTTP/1.1\r\n"
            f"Host: {parts.netloc}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode("ascii") + self.body


@dataclass(slots=True)
class Outcome:
    """What one window of load showed.

    Attributes:
        failures: Answers with a status other than 2xx, and connections that
            broke, by status or by kind.
        refusals_s: How long those other answers took.
        cpu_s: CPU seconds of the server's process tree; None if not asked for.
    """

    requests: int = 0
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list, repr=False)
    refusals_s: list[float] = field(default_factory=list, repr=False)
    failures: Counter[str] = field(default_factory=Counter)
    cpu_s: float | None = None
    cpu_s_by_role: dict[str, float] = field(default_factory=dict)

    def summary(self) -> dict[str, object]:
        """The figures, ready for JSON; nothing that grows with the run."""
        ordered = sorted(self.latencies_s)
        figures: dict[str, object] = {
            "requests": self.requests,
            "seconds": self.seconds,
            "failures": dict(self.failures),
            "cpu_s": self.cpu_s,
            "cpu_s_by_role": self.cpu_s_by_role,
        }
        figures["requests_per_s"] = self.requests / self.seconds if self.seconds else 0.0
        figures["p50_ms"] = percentile(ordered, 0.50) * 1000
        figures["p99_ms"] = percentile(ordered, 0.99) * 1000
        figures["quantiles_ms"] = [round(percentile(ordered, q) * 1000, 4) for q in QUANTILES]
        if self.refusals_s:
            refusals = sorted(self.refusals_s)
            figures["refusal_p50_ms"] = percentile(refusals, 0.50) * 1000
            figures["refusal_p99_ms"] = percentile(refusals, 0.99) * 1000
        if self.cpu_s is not None and self.requests:
            figures["cpu_s_per_1000"] = self.cpu_s / self.requests * 1000
        return figures


def percentile(ordered: list[float], share: float) -> float:
    """Nearest rank; 0 for an empty list."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class BadAnswer(Exception):
    """The bytes received are not an HTTP answer we understand."""


class AnswerFraming:
    """Finds where an answer ends.  No I/O: bytes in, finished answers out."""

    def __init__(self) -> None:
        self.status = 0
        self.closes = False
        self._buffer = bytearray()
        self._body_left = -1  # -1: still reading headers
        self._is_chunked = False

    def feed(self, data: bytes) -> bool:
        """Take bytes; True when an answer is complete.

        A closed loop has one answer in flight, so whatever follows a
        complete answer is the server's mistake.
        """
        if self._body_left < 0 or self._is_chunked:
            self._buffer += data
            if self._body_left < 0 and not self._read_head():
                return False
            if self._is_chunked:
                return self._read_chunks()
        else:
            self._body_left -= len(data)
        if self._body_left < 0:
            raise BadAnswer("more bytes than content-length says")
        return self._end() if self._body_left == 0 else False

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise BadAnswer("headers without an end")
            return False
        head = bytes(self._buffer[:end]).lower()
        if not head.startswith(b"http/1.") or not head[9:12].isdigit():
            raise BadAnswer("not HTTP/1")
        self.status = int(head[9:12])
        self.closes = b"\r\nconnection: close" in head
        del self._buffer[: end + 4]
        if b"\r\ntransfer-encoding: chunked" in head:
            self._is_chunked, self._body_left = True, 0
            return True
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            raise BadAnswer("neither content-length nor chunks")
        line_end = head.find(b"\r\n", at + 2)
        length = int(head[at + 17 : line_end if line_end >= 0 else None])
        self._body_left = length - len(self._buffer)
        self._buffer.clear()
        return True

    def _read_chunks(self) -> bool:
        """Drop whole chunks from the buffer; trailers are not expected."""
        while (line_end := self._buffer.find(b"\r\n")) >= 0:
            size = int(bytes(self._buffer[:line_end]).split(b";")[0], 16)
            chunk_end = line_end + 2 + size + 2
            if len(self._buffer) < chunk_end:
                return False
            del self._buffer[:chunk_end]
            if size == 0:
                return self._end()
        return False

    def _end(self) -> bool:
        self._buffer.clear()
        self._body_left, self._is_chunked = -1, False
        return True


class Connection(asyncio.Protocol):
    """One closed loop."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._framing = AnswerFraming()
        self._transport: asyncio.Transport | None = None
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports only look like asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        if self._driver.is_over:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._driver.request)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            is_complete = self._framing.feed(data)
        except (BadAnswer, ValueError):
            self._driver.record_failure("bad answer")
            self._sent_at = 0.0
            self._transport.abort()
            return
        if not is_complete:
            return
        self._driver.record(self._framing.status, time.perf_counter() - self._sent_at)
        self._sent_at = 0.0
        if self._framing.closes:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if self._sent_at:
            self._driver.record_failure("connection lost")
        self._driver.closed(at_once=not self._sent_at and self._framing.closes)


class Driver:
    """All connections of one load, and the window in which they count."""

    def __init__(self, load: Load, server_pids: list[int]) -> None:
        self.request = load.request()
        self.is_over = False
        self._load = load
        self._pids = server_pids
        self._outcome = Outcome()
        self._is_counting = False
        self._open = 0
        self._connecting: set[asyncio.Future[None]] = set()
        self._all_closed = asyncio.Event()

    def record(self, status: int, latency_s: float) -> None:
        if self._is_counting:
            if 200 <= status < 300:
                self._outcome.requests += 1
                self._outcome.latencies_s.append(latency_s)
            else:
                self._outcome.failures[str(status)] += 1
                self._outcome.refusals_s.append(latency_s)

    def record_failure(self, kind: str) -> None:
        if self._is_counting:
            self._outcome.failures[kind] += 1

    def closed(self, *, at_once: bool = False) -> None:
        """A connection ended or could not be made; the loop goes on with a new one."""
        self._open -= 1
        if not self.is_over:
            wait_s = 0.0 if at_once else RECONNECT_S
            asyncio.get_running_loop().call_later(wait_s, self._spawn_connect)
        elif self._open == 0:
            self._all_closed.set()

    def _spawn_connect(self) -> None:
        if self.is_over:
            return
        self._open += 1
        # The loop itself holds tasks only weakly.
        task = asyncio.ensure_future(self._connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: Connection(self), self._load.host, self._load.port)
        except OSError:
            self.record_failure("refused")
            self.closed()

    async def run(self) -> Outcome:
        for _ in range(self._load.connections):
            self._spawn_connect()
        await asyncio.sleep(self._load.warmup_s)

        before = sample_cpu(self._pids)
        self._is_counting, started = True, time.perf_counter()
        await asyncio.sleep(self._load.duration_s)
        self._is_counting = False
        self._outcome.seconds = time.perf_counter() - started
        used = sample_cpu(self._pids).since(before)

        self.is_over = True
        if self._open:
            try:
                await asyncio.wait_for(self._all_closed.wait(), GRACE_S)
            except TimeoutError:
                self._outcome.failures["no answer"] += self._open
        if self._pids:
            self._note_cpu(used)
        return self._outcome

    def _note_cpu(self, used: CpuSample) -> None:
        self._outcome.cpu_s = used.total_s
        self._outcome.cpu_s_by_role = used.by_role


async def drive(load: Load, server_pids: list[int]) -> Outcome:
    """Run one load to its end in this process."""
    return await Driver(load, server_pids).run()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--duration", type=float, default=10.0, help="seconds that count")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before those")
    parser.add_argument("--body-bytes", type=int, default=100)
    parser.add_argument("--body-file", type=Path, help="send this file instead")
    parser.add_argument("--content-type", default="application/octet-stream")
    parser.add_argument("--pid", type=int, action="append", default=[], help="root of the server")
    options = parser.parse_args()
    # Every connection is a file.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    body = options.body_file.read_bytes() if options.body_file else b"x" * options.body_bytes
    load = Load(
        options.url,
        options.connections,
        options.duration,
        options.warmup,
        body,
        options.content_type,
    )
    try:
        import uvloop

        outcome = uvloop.run(drive(load, options.pid))
    except ImportError:
        outcome = asyncio.run(drive(load, options.pid))
    json.dump(outcome.summary(), sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
