"""When a worker that is well is replaced all the same.

Handlers leak, and caches grow: a version may say after how many requests, at
what age or at what size its workers are to be replaced.  Nothing is lost by
it: a successor is started first, and when that has loaded the old worker
finishes what it holds and leaves.  Where two do not fit (the successor runs
out of memory while it loads) the old one leaves first.

Beyond a hard limit of memory nobody waits: the worker is killed, and what it
held is tried again as after any death.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stoker.supervisor.workers import Worker

_MIB: Final = 1 << 20
#: After a successor that could not be had, the next one is tried no sooner.
AGAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker of a version may become before it is replaced; 0 = whatever it likes.

    Attributes:
        kill_bytes: Memory at which it is killed.
    """

    jobs: int = 0
    age_s: float = 0.0
    memory_bytes: int = 0
    kill_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.jobs or self.age_s or self.memory_bytes or self.kill_bytes)

    @property
    def are_of_memory(self) -> bool:
        return bool(self.memory_bytes or self.kill_bytes)

    def passed_by(self, worker: Worker, now: float) -> str | None:
        """Why a loaded worker is due to be replaced, for the log; None: it is not."""
        if self.jobs and worker.jobs_done >= self.jobs:
            return f"max_worker_jobs: {worker.jobs_done} requests"
        if self.memory_bytes and worker.memory_bytes >= self.memory_bytes:
            return f"max_worker_memory_mb: {worker.memory_bytes // _MIB} MiB"
        if self.age_s and worker.loaded_at is not None and now - worker.loaded_at >= self.age_s:
            return f"max_worker_age_s: {now - worker.loaded_at:.0f} s"
        return None


NO_LIMITS: Final = Limits()
