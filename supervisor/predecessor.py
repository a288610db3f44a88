"""What a supervisor that is gone has written down of its workers.

Source: design section 4; issue "Nothing is lost", promise 4.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from stoker.process_start import boot_id
from stoker.supervisor.worker_record import WorkerRecord

MAX_FILE_BYTES: Final = 64 << 20
#: Longer than a frontend waits for somebody to send its jobs to (`wire.link.KEEP_S`).
LATELY_S: Final = 120.0


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
                record = WorkerRecord.from_line(line)
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
    return Predecessor(
        str(head["life"]), worker_id, slot, tuple(workers.values()), tuple(recent(lately).items())
    )


def recent(lately: dict[str, float]) -> dict[str, float]:
    """Without what nobody can ask about any more."""
    since = time.monotonic() - LATELY_S
    return {spec: at for spec, at in lately.items() if at > since}
