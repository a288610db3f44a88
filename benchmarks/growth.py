"""What a request costs as connections, workers and bodies grow; models are in `crowds.py`."""

from __future__ import annotations

import time
from dataclasses import replace

from measuring import Effort, Figures, combine, drive, say
from process_tree import resident_bytes, wait_idle
from scenarios import ECHO, ECHO_32, KIB, MIB, SIZE, SLOW, Scenario
from targets import Target, local_server, ours

CONNECTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
WORKERS = (1, 2, 4, 8, 16, 32, 64)
BODIES = (
    100,
    KIB,
    10 * KIB,
    64 * KIB,
    256 * KIB,
    MIB,
    10 * MIB,
    32 * MIB,
    100 * MIB,
)
BODY_CONNECTIONS = 4
#: From here on a window must be long to hold some answers.
LONG_BODY, LONG_S = 10 * MIB, 4.0


def measure(effort: Effort) -> Figures:
    results: Figures = {}
    with local_server() as server:
        target = ours(server, (ECHO, ECHO_32, SIZE))
        drive(target, Scenario("warm", ECHO, 8), 1.0, 0.0)
        results["connections"] = connections(target, effort)
        results["bodies"] = bodies(target, effort)
    results["workers"] = workers(effort)
    return results


def connections(target: Target, effort: Effort) -> dict[str, list[Figures]]:
    curves: dict[str, list[Figures]] = {}
    for model in (ECHO, ECHO_32):
        for count in CONNECTIONS:
            load = Scenario(f"{model.name}, {count} connections", model, count)
            figures = _windows(target, load, effort)
            curves.setdefault(model.name, []).append({"connections": count, **figures})
            say(f"{load.name}: {figures['cpu_us']:.0f} us, {figures['requests_per_s']:.0f}/s")
    return curves


def bodies(target: Target, effort: Effort) -> list[Figures]:
    points = []
    for size in BODIES:
        load = Scenario(f"{size} bytes", SIZE, BODY_CONNECTIONS, body_bytes=size)
        longer = effort if size < LONG_BODY else replace(effort, seconds=LONG_S, warmup_s=1.0)
        figures = _windows(target, load, longer)
        points.append({"body_bytes": size, **figures})
        say(
            f"{size} bytes: {figures['mb_per_s']:.1f} MB/s,"
            f" {figures.get('cpu_s_per_gb', 0):.2f} cpu-s/GB, {figures['failures'] or ''}"
        )
    return points


def workers(effort: Effort) -> list[Figures]:
    """Handlers that wait 5 ms: twice the workers should answer twice as much."""
    points = []
    for count in WORKERS:
        with local_server() as server:
            started = time.perf_counter()
            server.register(**SLOW.query(), initial_workers=count)
            ready_s = time.perf_counter() - started
            wait_idle([server.pid])
            pss = resident_bytes([server.pid])
            target = ours(server, ())
            slow = Target(target.name, target.url, target.pids, frozenset({SLOW.name}))
            load = Scenario(f"{count} workers", SLOW, max(8, 4 * count))
            figures = _windows(slow, load, effort)
        points.append({"workers": count, "ready_s": ready_s, "pss_bytes": pss, **figures})
        say(
            f"{count} workers: ready {ready_s:.2f} s, {pss / 1e6:.0f} MB,"
            f" {figures['requests_per_s']:.0f}/s, {figures['cpu_us']:.0f} us"
        )
    return points


def _windows(target: Target, load: Scenario, effort: Effort) -> Figures:
    figures = combine(
        [drive(target, load, effort.seconds, effort.warmup_s) for _ in range(effort.repeats)]
    )
    del figures["quantiles_ms"]
    return figures
