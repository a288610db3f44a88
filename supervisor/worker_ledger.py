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

`predecessor.py` reads it, and `worker_record.py` has the lines of workers.

Source: design section 4; issue "Nothing is lost", promise 4.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from stoker.logs import get_logger
from stoker.process_start import boot_id, start_ticks
from stoker.supervisor.predecessor import Predecessor, read_ledger, recent
from stoker.supervisor.worker_record import WorkerRecord

log = get_logger("supervisor")

FILE: Final = "workers.ledger"
#: Written anew when so many lines speak of workers that are gone.
MAX_DEAD_LINES: Final = 2000


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
            self._append(worker.to_line())

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
        self._lately = recent(self._lately)
        lines = [
            first,
            *({"lost": spec, "at": at} for spec, at in self._lately.items()),
            *(worker.to_line() for worker in self._workers.values()),
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


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
