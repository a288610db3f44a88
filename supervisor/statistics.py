"""The numbers everybody reads: queue lengths, worker states, restarts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from stoker.supervisor.engine import Engine


def statistics(engine: Engine, now: float) -> dict[str, Any]:
    """One row per registered version; plain numbers, no dialect."""
    rows = []
    for served in engine.registry:
        crew, queue = served.crew, served.pool.queue
        states = Counter(worker.state.value for worker in crew.workers())
        rows.append(
            {
                "model": served.spec.model,
                "version": served.spec.version,
                "pending": queue.pending,
                "capacity": queue.capacity,
                "in_hand": sum(
                    len(batch.jobs) for worker in crew.workers() for batch in worker.in_hand
                ),
                "restarts": sum(slot.restarts for slot in crew.slots),
                "workers": dict(states),
            }
        )
    return {"jobs": engine.job_count, "versions": rows}
