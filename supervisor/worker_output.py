"""What workers print: to one file per version, to the log, and the last lines kept at hand.

A worker's stdout and stderr are user code's: endless lines, floods, progress
bars and terminal escapes are all normal and must cost the supervisor little.
So lines have a length cap, each worker a byte budget that refills with time,
and each file two generations.  What falls out of the budget is counted and
said; the very last lines survive even then, since those hold the traceback.

    <log_dir>/models/<model>/<version>.log
    2026-11-22T12:00:00.123Z 9000 stderr | Traceback (most recent call last):

Writes go to the page cache; nothing is synced.

Source: contracts/torchserve.md 6.5 (stdout is INFO, stderr is WARN).
"""

from __future__ import annotations

import enum
import os
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from stoker.clock import Clock, MonotonicClock
from stoker.logs import get_logger
from stoker.supervisor.printed_metrics import MARK

log = get_logger("model")

MAX_LINE_BYTES: Final = 8 << 10
KEPT_LINES: Final = 100
#: Kept lines are cut shorter, so that a thousand workers stay within megabytes.
MAX_KEPT_CHARACTERS: Final = 1000
#: A worker's budget: this much at once, and this much per second in the long run.
BURST_BYTES: Final = 1 << 20
BYTES_PER_S: Final = 256 << 10
#: What a line costs besides its bytes (its prefix, its log call): 2000 lines a second at most.
LINE_COST: Final = 128
#: Of a flood, only the end of each read is looked at.
FLOOD_TAIL_BYTES: Final = 8 << 10
#: A log file that cannot be written is tried again after this.
RETRY_S: Final = 30.0

#: C0, DEL and C1 except tab, spelled out: a terminal that shows the log must not obey a handler.
_CONTROL: Final = {n: f"\\x{n:02x}" for n in (*range(9), *range(10, 32), *range(127, 160))}


class Stream(enum.Enum):
    STDOUT = "stdout"
    STDERR = "stderr"


class WorkerOutput:
    """Captures the output of all workers.  Never raises; never blocks on more than a write."""

    def __init__(
        self,
        log_dir: Path,
        max_file_bytes: int,
        *,
        is_logged: bool = True,
        clock: Clock | None = None,
        wall: Callable[[], float] = time.time,
        take_metric: Callable[[str, str, str, float], bool] | None = None,
    ) -> None:
        self._take_metric = take_metric
        self._log_dir = log_dir
        self._max_file_bytes = max_file_bytes
        self._is_logged = is_logged
        self._clock = clock or MonotonicClock()
        self._wall = wall
        self._files: dict[tuple[str, str], VersionLog] = {}
        self._workers: dict[int, _Captured] = {}

    def open(self, worker_id: int, model: str, version: str, slot: int | None = None) -> None:
        """Begin with a new process of a worker; what an earlier one printed is forgotten.

        Args:
            slot: The number that people know the worker by; the id if None.
        """
        self.close(worker_id)
        key = (model, version)
        if key not in self._files:
            self._files[key] = VersionLog(self._log_dir / log_name(*key), self._max_file_bytes)
        self._files[key].writers += 1
        shown = worker_id if slot is None else slot
        self._workers[worker_id] = _Captured(key, shown, self._clock.now())

    def feed(self, worker_id: int, stream: Stream, data: bytes) -> None:
        """Take what was just read from a worker's pipe; unknown workers are ignored."""
        worker = self._workers.get(worker_id)
        if worker is None:
            return
        now = self._clock.now()
        if worker.spend(len(data) + LINE_COST * data.count(b"\n"), now):
            self._write(worker, worker.take_held())
            self._write(worker, [(stream, worker.clean(x)) for x in worker.split(stream, data)])
        else:
            worker.hold(stream, data)

    def tail(self, worker_id: int) -> list[str]:
        """The last lines of both streams, oldest first; [] for an unknown worker."""
        worker = self._workers.get(worker_id)
        if worker is None:
            return []
        held = [line for _, line in worker.held]
        return [*worker.kept, *held, *worker.partial_lines()][-KEPT_LINES:]

    def close(self, worker_id: int) -> None:
        """End a worker's capture: write what it left without a newline, forget its lines."""
        worker = self._workers.pop(worker_id, None)
        if worker is None:
            return
        lines = worker.take_held()
        lines += [(stream, worker.clean(part)) for stream, part in worker.partial.items() if part]
        self._write(worker, lines)
        file = self._files[worker.key]
        file.writers -= 1
        if not file.writers:
            file.close()
            del self._files[worker.key]

    def close_all(self) -> None:
        for worker_id in tuple(self._workers):
            self.close(worker_id)

    def _write(self, worker: _Captured, lines: list[tuple[Stream, str]]) -> None:
        if self._take_metric is not None:
            lines = [line for line in lines if not self._is_metric(worker, *line)]
        if not lines:
            return
        stamp = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        text = "".join(f"{stamp}Z {worker.shown} {s.value} | {line}\n" for s, line in lines)
        self._files[worker.key].write(text.encode(), self._clock.now())
        worker.kept.extend(line[:MAX_KEPT_CHARACTERS] for _, line in lines)
        if not self._is_logged:
            return
        model, version = worker.key
        for stream, line in lines:
            say = log.info if stream is Stream.STDOUT else log.warning
            say(line, model=model, version=version, worker=worker.shown, stream=stream.value)

    def _is_metric(self, worker: _Captured, stream: Stream, line: str) -> bool:
        """Metrics go their own way."""
        if stream is not Stream.STDOUT or not line.startswith(MARK):
            return False
        assert self._take_metric is not None
        return self._take_metric(*worker.key, line, self._clock.now())


def log_name(model: str, version: str) -> str:
    """A version's log, relative to `log_dir`: what a client may be told (no path of ours).

    Names are checked at registration (`stoker.names`), so they are safe here;
    two folders deep, because `a-1` + `2` and `a` + `1-2` must not meet.
    """
    return f"models/{model}/{version}.log"


class _Captured:
    """One worker's lines: unfinished, kept, and held back."""

    __slots__ = ("_budget", "_refilled_at", "held", "kept", "key", "partial", "shown", "suppressed")

    def __init__(self, key: tuple[str, str], shown: int, now: float) -> None:
        self.shown = shown
        self.key = key
        self.partial: dict[Stream, bytes] = dict.fromkeys(Stream, b"")
        self.kept: deque[str] = deque(maxlen=KEPT_LINES)
        self.held: deque[tuple[Stream, str]] = deque(maxlen=KEPT_LINES)
        self.suppressed = 0
        self._budget = float(BURST_BYTES)
        self._refilled_at = now

    def spend(self, cost: int, now: float) -> bool:
        """Is there budget for that much?  A flood ends when half the burst is back."""
        refill = (now - self._refilled_at) * BYTES_PER_S
        self._budget = min(BURST_BYTES, self._budget + refill)
        self._refilled_at = now
        if self.suppressed and self._budget < BURST_BYTES / 2:
            return False
        if cost > self._budget:
            return False
        self._budget -= cost
        return True

    def split(self, stream: Stream, data: bytes) -> list[bytes]:
        """Complete lines; the rest waits for its newline, within the line cap."""
        *lines, rest = (self.partial[stream] + data).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            # A progress bar redraws one line for ever; only its last state counts.
            rest = rest.rsplit(b"\r", 1)[-1]
        if len(rest) > MAX_LINE_BYTES:
            # One byte above the cap is enough for `clean` to know that it was cut.
            rest = rest[: MAX_LINE_BYTES + 1]
        self.partial[stream] = rest
        return lines

    def hold(self, stream: Stream, data: bytes) -> None:
        """Count a flood's lines and keep its last ones, at a small price."""
        cut = max(0, len(data) - FLOOD_TAIL_BYTES)
        skipped = data.count(b"\n", 0, cut)
        if skipped:
            self.partial[stream] = b""
        lines = self.split(stream, data[cut:])
        self.suppressed += skipped + len(lines) or 1
        last = lines[-KEPT_LINES:]
        self.held.extend((stream, self.clean(line)[:MAX_KEPT_CHARACTERS]) for line in last)

    def take_held(self) -> list[tuple[Stream, str]]:
        """What a flood left: how much is missing, then its last lines."""
        if not self.suppressed:
            return []
        missing = self.suppressed - len(self.held)
        lines = list(self.held)
        if missing > 0:
            stream = lines[0][0] if lines else Stream.STDERR
            lines.insert(0, (stream, f"[stoker] suppressed {missing} lines of a flood"))
        self.suppressed = 0
        self.held.clear()
        return lines

    def partial_lines(self) -> list[str]:
        parts = (self.clean(part)[:MAX_KEPT_CHARACTERS] for part in self.partial.values())
        return [part for part in parts if part]

    @staticmethod
    def clean(line: bytes) -> str:
        """Bytes to one printable line, as a terminal would have shown it."""
        line = line.rstrip(b"\r")
        if b"\r" in line:
            line = line.rsplit(b"\r", 1)[1]
        is_cut = len(line) > MAX_LINE_BYTES
        text = line[:MAX_LINE_BYTES].decode("utf-8", "replace").translate(_CONTROL)
        return f"{text} [stoker] line cut" if is_cut else text


class VersionLog:
    """One log file and its predecessor (`.1`)."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.writers = 0
        self._path = path
        self._max_bytes = max_bytes
        self._fd: int | None = None
        self._size = 0
        self._retry_at = 0.0

    def write(self, data: bytes, now: float) -> None:
        """Append; a full disk or a missing folder loses lines, never the supervisor."""
        if now < self._retry_at:
            return
        try:
            if self._fd is not None and self._size and self._size + len(data) > self._max_bytes:
                self.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            if self._fd is None:
                self._open()
            assert self._fd is not None
            self._size += os.write(self._fd, data)
        except OSError as error:
            self.close()
            self._retry_at = now + RETRY_S
            log.warning("worker log not written", file=self._path.name, reason=str(error))

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
