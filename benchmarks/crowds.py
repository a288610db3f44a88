"""Many models: registered without workers, and each with a worker of its own."""

from __future__ import annotations

import time

from measuring import Effort, Figures, combine, drive, say
from peers.environments import Environment
from peers.java_archives import JavaPeer
from peers.running import PeerFailed, RunningPeer
from process_tree import resident_bytes, wait_idle
from scenarios import ECHO, Model, Scenario
from targets import LocalServer, local_server, ours

REGISTERED = (0, 1, 10, 100, 1000)
WITH_WORKERS = 50
READY_TIMEOUT_S = 120.0

BESIDE = Scenario("echo, 8 connections", ECHO, 8)


def registered(effort: Effort) -> list[Figures]:
    """An echo beside ever more models that nobody asks: memory of all, CPU and p99 of the echo."""
    points = []
    with local_server() as server:
        target = ours(server, (ECHO,))
        known = 0
        # The first load makes the server touch what it needs once.
        drive(target, BESIDE, 1.0, 0.0)
        for count in REGISTERED:
            _register(server, range(known, count))
            known = count
            wait_idle([server.pid])
            pss = resident_bytes([server.pid])
            runs = [
                drive(target, BESIDE, effort.seconds, effort.warmup_s)
                for _ in range(effort.repeats)
            ]
            points.append({"models": count, "pss_bytes": pss, **combine(runs)})
            say(
                f"{count} registered models: {pss / 1e6:.1f} MB,"
                f" echo {points[-1]['cpu_us']:.0f} us, p99 {points[-1]['p99_ms']:.2f} ms"
            )
    return points


def _register(server: LocalServer, numbers: range) -> None:
    for number in numbers:
        model = Model(f"idle_{number:04}", ECHO.handler)
        server.register(**model.query(), initial_workers=0)


def with_workers() -> Figures:
    """Fifty models asked for at once, one worker each: until all are ready, and memory then."""
    with local_server() as server:
        started = time.perf_counter()
        names = [f"busy_{number:02}" for number in range(WITH_WORKERS)]
        with server.client("management", timeout_s=READY_TIMEOUT_S) as manager:
            for name in names:
                query = Model(name, ECHO.handler).query()
                answer = manager.ask("POST", "/models", **query, initial_workers=1)
                if answer.status not in (200, 202):
                    raise PeerFailed(f"registering {name}: {answer.status} {answer.body!r}")
            waiting = list(names)
            while waiting:
                described = manager.ask("GET", f"/models/{waiting[0]}").json()
                if any(worker["status"] == "READY" for worker in described[0]["workers"]):
                    waiting.pop(0)
                elif time.perf_counter() - started > READY_TIMEOUT_S:
                    raise PeerFailed(f"{len(waiting)} models have no ready worker")
                else:
                    time.sleep(0.01)
        ready_s = time.perf_counter() - started
        wait_idle([server.pid])
        figures = {"ready_s": ready_s, "pss_bytes": resident_bytes([server.pid])}
    say(f"{WITH_WORKERS} models: ready {ready_s:.2f} s, {figures['pss_bytes'] / 1e6:.0f} MB")
    return figures


def of_java_peer(peer: JavaPeer, environment: Environment) -> Figures:
    """The same of a server with our registration, one model after the other as it wants them."""
    models = tuple(Model(f"busy_{number:02}", ECHO.handler) for number in range(WITH_WORKERS))
    with RunningPeer(peer, environment, models) as running:
        wait_idle([running.pid], timeout_s=10)
        pss = resident_bytes([running.pid])
        figures = {"ready_s": running.registered_s, "pss_bytes": pss}
    say(f"{peer.name}: {WITH_WORKERS} models in {figures['ready_s']:.1f} s, {pss / 1e6:.0f} MB")
    return figures
