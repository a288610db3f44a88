"""The numbers everybody reads: queue lengths, worker states, restarts, and what was counted.

Built when somebody asks; between two questions nothing is added up.

Source: contracts/torchserve.md 10.2.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from stoker.supervisor.engine import Engine
from stoker.supervisor.families import OURS, PEERS
from stoker.supervisor.frontend_reports import FrontendReports
from stoker.supervisor.jobs import Asked
from stoker.supervisor.sequence_pool import SequencePool
from stoker.supervisor.served import Served
from stoker.supervisor.tally import SIZE_BOUNDS, TIME_BOUNDS, Histogram
from stoker.supervisor.workers import WorkerState

#: More versions make a page that nobody can read; those with workers or requests come first.
MAX_VERSIONS: Final = 1000
HOSTNAME: Final = socket.gethostname()

Samples = list[Any]


def statistics(
    engine: Engine, reports: FrontendReports, now: float
) -> tuple[list[Served], dict[str, Samples]]:
    """The versions that are shown, and the samples of every metric by its name."""
    busy = (
        served for served in engine.registry if served.crew.slots or not served.pool.tally.is_empty
    )
    shown = list(islice(busy, MAX_VERSIONS))
    samples: dict[str, Samples] = {name: [] for name in (*PEERS, *OURS)}
    for served in shown:
        _add_version(samples, served)
    _add_server(samples, engine, reports, now)
    left_out = sum(1 for _ in busy)
    samples["stoker_versions_left_out"].append([[], left_out])
    return shown, samples


def rows(served: Iterable[Served]) -> list[dict[str, Any]]:
    """One row per version; plain numbers, no dialect."""
    return [
        {
            "model": each.spec.model,
            "version": each.spec.version,
            "pending": each.pool.queue.pending,
            "capacity": each.pool.queue.capacity,
            "in_hand": _in_hand(each),
            "restarts": sum(slot.restarts for slot in each.crew.slots),
            "workers": _states(each),
            "wanted": each.wanted_workers,
        }
        for each in served
    ]


def _add_version(samples: dict[str, Samples], served: Served) -> None:
    spec, pool, crew = served.spec, served.pool, served.crew
    tally, queue = pool.tally, pool.queue
    for version, asked in (("default", tally.default), (spec.version, tally.named)):
        if asked.requests:
            _add_asked(samples, [spec.model, version, HOSTNAME], asked)
    if not tally.is_empty:
        # One of the host; the latest version has the word, as the latest job has at the peer.
        samples["QueueTime"][:] = [[["Host", HOSTNAME], tally.last_wait_s * 1000]]
    for worker in crew.slots.workers():
        if worker.loaded_at is not None:
            name = f"W-{worker.slot}-{spec.model}_{spec.version}"
            load_ms = (worker.loaded_at - worker.started_at) * 1000
            samples["WorkerLoadTime"].append([[name, "Host", HOSTNAME], load_ms])
    key = [spec.model, spec.version]
    for metric, histogram in (
        ("stoker_queue_wait_seconds", tally.waits),
        ("stoker_batch_duration_seconds", tally.handling),
        ("stoker_batch_size", tally.sizes),
    ):
        samples[metric].append([key, _buckets(histogram)])
    if isinstance(pool, SequencePool):
        for worker in crew.slots.workers():
            count = pool.sequence_count(worker.worker_id)
            samples["stoker_sequences"].append([[*key, str(worker.slot)], count])
        samples["stoker_sequences_lost_total"].append([key, pool.sequences.lost_count])
    states = _states(served)
    for state in WorkerState:
        if state is not WorkerState.GONE:
            samples["stoker_workers"].append([[*key, state.value], states.get(state.value, 0)])
    for metric, number in (
        ("stoker_workers_wanted", served.wanted_workers),
        ("stoker_queue_depth", queue.pending),
        ("stoker_queue_capacity", queue.capacity),
        ("stoker_requests_in_hand", _in_hand(served)),
        ("stoker_worker_deaths_total", crew.losses.count),
        ("stoker_worker_recycles_total", crew.succession.recycled_count),
        ("stoker_request_retries_total", pool.recovery.retried),
    ):
        samples[metric].append([key, number])


def _add_asked(samples: dict[str, Samples], key: list[str], asked: Asked) -> None:
    samples["ts_inference_requests_total"].append([key, asked.requests])
    samples["ts_inference_latency_microseconds"].append([key, asked.latency_s * 1e6])
    samples["ts_queue_latency_microseconds"].append([key, asked.queue_s * 1e6])


def _add_server(
    samples: dict[str, Samples], engine: Engine, reports: FrontendReports, now: float
) -> None:
    host = ["Host", HOSTNAME]
    answers = reports.answers
    succeeded, refused = answers[2], answers[4]
    samples["Requests2XX"].append([host, succeeded])
    samples["Requests4XX"].append([host, refused])
    samples["Requests5XX"].append([host, sum(answers) - succeeded - refused])
    for reason, count in sorted(reports.errors.items()):
        samples["stoker_errors_total"].append([[reason], count])
    held = reports.held(now)
    samples["stoker_requests_in_flight"].append([[], engine.job_count])
    samples["stoker_connections"].append([[], held.get("connections", 0)])
    for where, size in (
        ("supervisor", engine.payload_bytes),
        ("frontends", held.get("bodies", 0)),
        ("shared_memory", held.get("arena", 0)),
    ):
        samples["stoker_held_bytes"].append([[where], size])


def families(samples: dict[str, Samples], names: Iterable[str]) -> list[list[Any]]:
    """What a frontend writes down, in the order of the names."""
    bounds: dict[str, tuple[float, ...]] = dict.fromkeys(OURS, TIME_BOUNDS)
    bounds["stoker_batch_size"] = SIZE_BOUNDS
    known = {**PEERS, **OURS}
    return [
        known[name].row(samples[name], bounds[name] if known[name].kind == "histogram" else ())
        for name in names
    ]


def _states(served: Served) -> dict[str, int]:
    return dict(Counter(worker.state.value for worker in served.crew.slots.workers()))


def _in_hand(served: Served) -> int:
    workers = served.crew.slots.workers()
    return sum(len(batch.jobs) for worker in workers for batch in worker.in_hand)


def _buckets(histogram: Histogram) -> list[Any]:
    return [histogram.counts, histogram.total]
