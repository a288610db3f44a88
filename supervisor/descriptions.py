"""What describe says of a version: the registry's facts, live numbers, no dialect.

Source: contracts/torchserve.md 3.6; memory is never older than five seconds
(contracts/README.md).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from stoker.settings import Settings
from stoker.supervisor.deaths import Death
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.devices import usage_text
from stoker.supervisor.engine import Engine
from stoker.supervisor.group_descriptions import describe_groups
from stoker.supervisor.host_fencing import describe_fence
from stoker.supervisor.residency import Residency
from stoker.supervisor.sequence_pool import SequencePool
from stoker.supervisor.served import Served
from stoker.supervisor.slots import Slot
from stoker.supervisor.versions import VersionState
from stoker.supervisor.worker_output import log_name
from stoker.supervisor.workers import Worker
from stoker.wire.loading import CONTINUOUS


class Describer:
    """Builds the records of the `describe` verb.

    Args:
        loaded_at_start: Names of models; it grows while the supervisor starts.
    """

    def __init__(
        self,
        engine: Engine,
        places: DevicePlaces,
        settings: Settings,
        loaded_at_start: Collection[str] = (),
    ) -> None:
        self._loaded_at_start = loaded_at_start
        self._engine = engine
        self._places = places
        self._settings = settings
        self._residency = Residency()

    def describe(self, versions: list[Served], now: float) -> list[dict[str, Any]]:
        """One record per version; all workers' memory is read in one walk."""
        pids = {
            worker.worker_id: worker.pid
            for served in versions
            for worker in served.crew.slots.workers()
            if worker.pid > 0
        }
        memory_bytes = self._residency.memory_bytes(pids, now)
        wall = time.time() - now
        return [self._record(served, now, wall, memory_bytes) for served in versions]

    def _record(
        self, served: Served, now: float, wall: float, memory_bytes: dict[int, int]
    ) -> dict[str, Any]:
        spec, crew, queue = served.spec, served.crew, served.pool.queue
        failure = crew.loads.failure
        default = self._engine.registry.default_version(spec.model)
        return {
            "model": spec.model,
            "version": spec.version,
            "url": spec.shown["url"],
            "engine": spec.shown["engine"],
            "is_unversioned": spec.shown["is_unversioned"],
            "takes_adapters": bool(spec.loading.get("adapters_name")),
            "number_gpu": spec.number_gpu,
            "is_preloaded": spec.is_preloaded,
            "manifest_engine": spec.shown.get("manifest_engine"),
            "runtime": spec.shown["runtime"],
            "min_workers": crew.min_workers,
            "max_workers": crew.max_workers,
            "batch_size": spec.batch.max_size,
            "max_batch_delay_s": spec.batch.delay_s,
            "response_timeout_s": spec.response_timeout_s,
            "startup_timeout_s": spec.startup_timeout_s,
            "max_idle_s": spec.max_idle_s,
            "max_retry_timeout_s": spec.max_retry_s,
            "client_timeout_s": spec.client_timeout_s,
            "parallel_type": spec.parallel_type,
            "parallel_level": spec.parallel_level,
            "is_continuous": spec.loading.get("mode") == CONTINUOUS,
            "uses_job_tickets": spec.uses_job_tickets,
            "sequences": _sequences(served),
            "uses_venv": bool(spec.python),
            "device_type": spec.device_type,
            "device_ids": list(spec.device_ids),
            "is_default": spec.version == default,
            "loaded_at_startup": spec.model in self._loaded_at_start,
            "status": status_of(served, now),
            "is_pending": is_pending(served),
            "failure": None
            if failure is None
            else {
                "message": failure.message,
                "last_line": failure.last_line,
                "log": str(log_name(spec.model, spec.version)),
            },
            "groups": describe_groups(served, self._places),
            "workers": [
                self._worker(slot, wall, memory_bytes)
                | _of_sequences(served, slot.worker.worker_id)
                | _of_many_at_once(served, slot.worker)
                for slot in crew.slots
                if slot.worker is not None
            ],
            "queue": {"capacity": queue.capacity, "pending": queue.pending},
            "deaths": crew.losses.count,
            "last_death": _death(crew.losses.latest, wall),
            "recycled": crew.succession.recycled_count,
            "scaling": _scaling(served, wall),
            "fence": None if spec.fence is None else describe_fence(spec.fence),
            "quarantine": [
                {
                    "content": conviction.content.digest.hex(),
                    "likely": conviction.cause,
                    "deaths": conviction.deaths,
                    "refused": conviction.refused,
                    "until": wall + conviction.until,
                }
                for conviction in served.pool.convictions.values()
            ],
        }

    def _worker(self, slot: Slot, wall: float, memory_bytes: dict[int, int]) -> dict[str, Any]:
        worker = slot.worker
        assert worker is not None
        device = self._places.device(worker.device)
        return {
            "id": slot.number,
            "started_at": wall + worker.started_at,
            "state": worker.state.value,
            "memory_bytes": memory_bytes.get(worker.worker_id, 0),
            "pid": worker.pid,
            "gpu_id": None if device is None else device.index,
            "gpu_usage": usage_text(device),
            "restarts": slot.restarts,
        }


def status_of(served: Served, now: float) -> str:
    if served.state is VersionState.FAILED:
        return "Failed"
    return "Healthy" if served.crew.is_healthy(now) else "Unhealthy"


def is_pending(served: Served) -> bool:
    """It waits for its archive, or for the first of its workers."""
    return served.state is VersionState.REGISTERED or served.crew.is_loading


def _sequences(served: Served) -> dict[str, Any] | None:
    """The limits of a version's sequences; None where there are none."""
    policy, pool = served.spec.sequences, served.pool
    if policy is None or not isinstance(pool, SequencePool):
        return None
    return {
        "max_idle_s": policy.max_idle_s,
        "timeout_s": policy.timeout_s,
        "max_open": pool.max_open,
        "max_waiting": policy.max_waiting,
        "open": len(pool.sequences),
        "lost": pool.sequences.lost_count,
    }


def _of_sequences(served: Served, worker_id: int) -> dict[str, Any]:
    if served.spec.sequences is None:
        return {}
    return {"sequences": served.pool.sequence_count(worker_id)}


def _of_many_at_once(served: Served, worker: Worker) -> dict[str, Any]:
    return {"in_hand": len(worker.in_hand)} if served.spec.jobs_at_once else {}


def _scaling(served: Served, wall: float) -> dict[str, Any] | None:
    """Why there are as many workers as there are; None where their number is fixed."""
    autoscaler, spec = served.autoscaler, served.spec
    if autoscaler is None:
        return None
    change = autoscaler.change
    return {
        "wanted": autoscaler.wanted,
        "why": autoscaler.reason,
        "queue_wait_target_s": spec.queue_wait_target_s,
        "max_idle_s": spec.max_idle_s,
        "measured": autoscaler.facts,
        "last_change": None
        if change is None
        else {
            "at": wall + change.at,
            "from": change.workers,
            "to": change.wanted,
            "why": change.reason,
            "measured": change.facts,
        },
    }


def _death(death: Death | None, wall: float) -> dict[str, Any] | None:
    """The latest end that nobody wanted."""
    if death is None:
        return None
    return {
        "at": wall + death.at,
        "worker": death.worker,
        "pid": death.pid,
        "exit": death.exit,
        "likely": death.cause,
        "jobs_again": death.jobs_again,
        "jobs_failed": death.jobs_failed,
    }
