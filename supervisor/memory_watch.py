"""Measures the workers whose memory matters, and what is left of the host's."""

from __future__ import annotations

from typing import Final

from stoker.supervisor.engine import Engine
from stoker.supervisor.host_memory import available_bytes
from stoker.supervisor.residency import children_of_all, tree_bytes

#: A look is a few microseconds per worker.
LOOK_S: Final = 1.0
#: Finding out who forked whom is a walk over all processes of the host.
WALK_S: Final = 10.0


class MemoryWatch:
    """Tells the engine, about once a second."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._look_at = 0.0
        self._walk_at = 0.0
        self._children: dict[int, list[int]] = {}

    def look(self, now: float) -> None:
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        if self._engine.memory.is_shared:
            self._engine.memory.available_bytes = available_bytes()
        workers = self._engine.measured_workers()
        if not workers:
            return
        if now >= self._walk_at:
            self._walk_at = now + WALK_S
            self._children = children_of_all()
        for worker in workers:
            size = tree_bytes(worker.pid, self._children)
            self._engine.worker_measured(worker.worker_id, size, now)
