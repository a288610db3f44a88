"""Who one worker is, for a supervisor that has not started it.

A successor adopts a worker that proves itself: pid and start time say that the
process is the one that was started, the token that it says so itself, and the
hash of the specification that it has loaded what it should have.

Source: design section 4; issue "Nothing is lost", promise 4.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from stoker.process_start import start_ticks
from stoker.supervisor.versions import VersionSpec

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

    def to_line(self) -> dict[str, Any]:
        """As it stands in the ledger."""
        line = asdict(self)
        return {"started": line.pop("worker_id"), **line}

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> WorkerRecord:
        """Raises ValueError, KeyError, TypeError."""
        return cls(
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
