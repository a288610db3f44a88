"""Who our workers are, written down for the supervisor that comes after us.

    <runtime_dir>/workers.ledger, one JSON object per line:
        {"life": "9f..", "pid": 40, "start_ticks": 812, "boot_id": "..", "worker_id": 7, ...}
        {"started": 8, "slot": 9004, "pid": 77, "start_ticks": 913, "token": "<sha256>", ...}
        {"ended": 8, "at": 5123.4}
        {"lost": "<spec hash>", "at": 5123.4}

The first line is the supervisor that writes, and how far its numbers have come;
they go on from there, because none is ever used twice.  A line is written when
a worker starts and when it has ended, with one system call and without waiting
for a disk: all this is only worth something while the processes live.  A line
that a killed writer left half written is skipped.

Who ended lately still matters: what a supervisor knew of its jobs may have died
with that one, and some handlers must not get a job twice.  `lost` says it of
workers whose own lines are gone.

A successor adopts a worker that proves itself: pid and start time say that the
process is the one that was started, the token that it says so itself, and the
hash of the specification that it has loaded what it should have.

Source: design section 4; issue "Nothing is lost", promise 4.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from stoker.logs import get_logger
from stoker.process_start import boot_id, start_ticks
from stoker.supervisor.versions import VersionSpec

log = get_logger("supervisor")

FILE: Final = "workers.ledger"
#: Written anew when so many lines speak of workers that are gone.
MAX_DEAD_LINES: Final = 2000
MAX_FILE_BYTES: Final = 64 << 20
#: Longer than a frontend waits for somebody to send its jobs to (`wire.link.KEEP_S`).
LATELY_S: Final = 120.0
#: What of a specification a worker does not notice.
_OF_THE_SUPERVISOR: Final = frozenset(
    {
        "batch",
        "client_timeout_s",
        "has_time_limits",
        "is_loaded_at_startup",
        "group_devices",
        "max_attempts",
        "max_idle_s",
        "max_retry_s",
        "most_workers",
        "quarantine_s",
        "queue_capacity",
        "queue_wait_target_s",
        "required_memory_bytes",
        "reserved_memory_bytes",
        "response_timeout_s",
        "sequences",
        "shown",
        "startup_timeout_s",
        "uses_job_tickets",
    }
)


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """What a successor must know of one worker.

    Attributes:
        start_ticks: With the pid it names one process for ever.
        token: SHA-256 of the worker's token: enough to check it, not to use it.
        spec: `spec_hash` of what it was told to load.
        devices: By UUID.
        has_loaded: Written down before it is given the first job.
        alone_since: When the first supervisor that missed it came (monotonic); None
            while it has one.
    """

    worker_id: int
    slot: int
    pid: int
    start_ticks: int
    token: str
    model: str
    version: str
    spec: str
    devices: tuple[str, ...] = ()
    has_loaded: bool = False
    alone_since: float | None = None

    @property
    def is_alive(self) -> bool:
        """The very process, not another one with its number."""
        return start_ticks(self.pid) == self.start_ticks

    def is_proved_by(self, token: bytes) -> bool:
        return hmac.compare_digest(self.token, token_hash(token))


@dataclass(frozen=True, slots=True)
class Predecessor:
    """What a ledger says: nothing, unless somebody wrote one since this host was started.

    Attributes:
        worker_id: The highest number that was given to a worker.
        slot: The highest number that clients have seen.
        workers: Those that have not ended as far as it knew.
        lately: When the last worker ended that had loaded something, by its `spec_hash`.
    """

    life: str = ""
    worker_id: int = 0
    slot: int = 0
    workers: tuple[WorkerRecord, ...] = ()
    lately: tuple[tuple[str, float], ...] = ()


class WorkerLedger:
    """Writes the ledger of one supervisor.

    Args:
        life: Names this supervisor: its incarnation.
    """

    def __init__(self, folder: Path, life: str) -> None:
        self._path = folder / FILE
        self._life = life
        self._handle = -1
        self._workers: dict[int, WorkerRecord] = {}
        self._lately: dict[str, float] = {}
        self._dead_lines = 0
        self._worker_id = 0
        self._slot = 0
        self._is_broken = False

    def take_over(self) -> Predecessor:
        """Read what the predecessor wrote and go on from there, with its living workers."""
        before = read_ledger(self._path)
        self._worker_id, self._slot = before.worker_id, before.slot
        now = time.monotonic()
        self._workers = {
            w.worker_id: w if w.alone_since is not None else replace(w, alone_since=now)
            for w in before.workers
            if w.is_alive
        }
        self._lately = dict(before.lately)
        for worker in before.workers:
            if worker.worker_id not in self._workers:
                self._lately[worker.spec] = now
        if self._workers or self._lately:
            self._write_anew()
        return before

    def started(self, worker: WorkerRecord) -> None:
        self._workers[worker.worker_id] = worker
        self._worker_id = max(self._worker_id, worker.worker_id)
        self._slot = max(self._slot, worker.slot)
        if self._handle < 0:
            self._write_anew()
        else:
            self._append(_started(worker))

    def loaded(self, worker_id: int) -> None:
        """It has loaded, and is ours: from now on it may have jobs in hand."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            self._workers[worker_id] = replace(worker, has_loaded=True, alone_since=None)
            self._append({"loaded": worker_id})

    def ended(self, worker_id: int) -> None:
        """Also for one that never got so far as to be written down."""
        worker = self._workers.pop(worker_id, None)
        if worker is None:
            return
        now = self._lately[worker.spec] = time.monotonic()
        self._dead_lines += 3
        if self._dead_lines >= MAX_DEAD_LINES:
            self._write_anew()
        else:
            self._append({"ended": worker_id, "at": now})

    def close(self) -> None:
        """An orderly end: there is nothing to take over."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._path.unlink(missing_ok=True)

    def let_go(self) -> None:
        """Leave it to a successor."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _append(self, line: dict[str, Any]) -> None:
        if self._handle < 0:
            self._write_anew()
            return
        try:
            os.write(self._handle, _line(line))
        except OSError as error:
            self._complain(error)

    def _write_anew(self) -> None:
        """Replace the file in one step by what is true now."""
        first = {
            "life": self._life,
            "pid": os.getpid(),
            "start_ticks": start_ticks(os.getpid()),
            "boot_id": boot_id(),
            "worker_id": self._worker_id,
            "slot": self._slot,
        }
        since = time.monotonic() - LATELY_S
        self._lately = {spec: at for spec, at in self._lately.items() if at > since}
        lines = [
            first,
            *({"lost": spec, "at": at} for spec, at in self._lately.items()),
            *(_started(worker) for worker in self._workers.values()),
        ]
        fresh = self._path.with_suffix(".new")
        try:
            handle = os.open(
                fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            try:
                os.write(handle, b"".join(map(_line, lines)))
                fresh.replace(self._path)
            except BaseException:
                os.close(handle)
                raise
        except OSError as error:
            self._complain(error)
            return
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = handle
        self._dead_lines = 0

    def _complain(self, error: OSError) -> None:
        if not self._is_broken:
            self._is_broken = True
            log.warning("ledger of workers not written", reason=error.strerror)


def read_ledger(path: Path) -> Predecessor:
    """What is readable of it; nothing of another boot, whose processes are all gone."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES)
    except OSError:
        return Predecessor()
    workers: dict[int, WorkerRecord] = {}
    lately: dict[str, float] = {}
    head: dict[str, Any] | None = None
    worker_id = slot = 0
    for text in content.split(b"\n"):
        try:
            line = json.loads(text)
            if "life" in line:
                head = line
                worker_id, slot = int(line["worker_id"]), int(line["slot"])
            elif "started" in line:
                record = _record(line)
                workers[record.worker_id] = record
                worker_id = max(worker_id, record.worker_id)
                slot = max(slot, record.slot)
            elif "loaded" in line:
                loaded = workers[int(line["loaded"])]
                workers[loaded.worker_id] = replace(loaded, has_loaded=True, alone_since=None)
            elif "lost" in line:
                lately[str(line["lost"])] = float(line["at"])
            elif (gone := workers.pop(int(line["ended"]), None)) is not None:
                lately[gone.spec] = float(line["at"])
        except (ValueError, KeyError, TypeError):
            continue
    if head is None or head.get("boot_id") != boot_id():
        return Predecessor()
    return Predecessor(str(head["life"]), worker_id, slot, tuple(workers.values()), _recent(lately))


def _recent(lately: dict[str, float]) -> tuple[tuple[str, float], ...]:
    since = time.monotonic() - LATELY_S
    return tuple((spec, at) for spec, at in lately.items() if at > since)


def token_hash(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def spec_hash(spec: VersionSpec) -> str:
    """Differs when a worker must start anew to be one of that version.

    What is not known to be the supervisor's business alone counts.
    """
    told = {
        item.name: getattr(spec, item.name)
        for item in fields(spec)
        if item.name not in _OF_THE_SUPERVISOR
    }
    text = json.dumps({**told, "batch": spec.batch.max_size}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _started(worker: WorkerRecord) -> dict[str, Any]:
    fields = asdict(worker)
    return {"started": fields.pop("worker_id"), **fields}


def _record(line: dict[str, Any]) -> WorkerRecord:
    """Raises ValueError, KeyError, TypeError."""
    return WorkerRecord(
        worker_id=int(line["started"]),
        slot=int(line["slot"]),
        pid=int(line["pid"]),
        start_ticks=int(line["start_ticks"]),
        token=str(line["token"]),
        model=str(line["model"]),
        version=str(line["version"]),
        spec=str(line["spec"]),
        devices=tuple(map(str, line["devices"])),
        has_loaded=bool(line.get("has_loaded", True)),
        alone_since=_optional(line.get("alone_since")),
    )


def _optional(value: float | None) -> float | None:
    return None if value is None else float(value)


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
