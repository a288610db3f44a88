"""Steady loads: every scenario on ours and on a peer in turn, one peer at a time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from measuring import Effort, Figures, alternate, call, combine, drive, heading, row_of, say
from peers.environments import CannotInstall, Environment, prepare
from peers.peer import Peer
from peers.running import PeerFailed, RunningPeer
from scenarios import MODELS, SCENARIOS, Scenario
from targets import OURS, Target, bare_asgi, local_server, of_peer, ours

HERE = Path(__file__).resolve().parent
#: Throughput and latency are plotted over these.
CONNECTIONS = (1, 4, 16, 64, 256, 1024)
CURVE_S = 1.5


def bare_loop(batch_size: int, seconds: float) -> Figures:
    arguments = [f"--batch-size={batch_size}", f"--seconds={seconds}"]
    return call(HERE / "bare_loop.py", *arguments, timeout_s=60.0 + 2 * seconds)


def install(peers: Sequence[Peer], folder: Path) -> tuple[dict[str, Environment], dict[str, str]]:
    """Environments by name, and for the others why there is none."""
    environments: dict[str, Environment] = {}
    missing: dict[str, str] = {}
    for peer in peers:
        try:
            environments[peer.name] = prepare(peer, folder)
            say(f"{peer.name}: {environments[peer.name].versions}")
        except CannotInstall as error:
            missing[peer.name] = f"not installed: {error}"
            say(f"{peer.name}: {missing[peer.name]}")
    return environments, missing


def measure(
    peers: Sequence[Peer],
    environments: dict[str, Environment],
    effort: Effort,
    only: str = "",
) -> Figures:
    """All scenarios; ours beside each peer, and beside the bare echo."""
    scenarios = [scenario for scenario in SCENARIOS if only in scenario.name]
    windows: dict[str, dict[str, list[Figures]]] = {}
    curves: dict[str, list[Figures]] = {}
    failed: dict[str, str] = {}
    with local_server() as server:
        us = ours(server)
        with bare_asgi() as bare:
            run_round([us, bare], scenarios, effort, windows)
            curves[bare.name] = connection_curve(bare)
        curves[OURS] = connection_curve(us)
        for peer in peers:
            if peer.name not in environments:
                continue
            try:
                with RunningPeer(peer, environments[peer.name], MODELS) as running:
                    them = of_peer(running)
                    warm_up(them, peer.warmup_s)
                    run_round([us, them], scenarios, effort, windows)
                    curves[them.name] = connection_curve(them)
            except PeerFailed as error:
                failed[peer.name] = f"did not run: {error}"
                say(f"{peer.name}: {failed[peer.name]}")
    rows = {
        name: {target: combine(runs) for target, runs in by_target.items()}
        for name, by_target in windows.items()
    }
    return {"rows": rows, "curves": curves, "failed": failed}


def warm_up(target: Target, seconds: float) -> None:
    """What a JVM needs before its figures say anything."""
    for name in ("echo, 64 connections", "echo batch 32 / 2 ms, 64 connections"):
        scenario = next(found for found in SCENARIOS if found.name == name)
        if scenario.model.name in target.models:
            drive(target, scenario, seconds / 2, 0.0)


def run_round(
    targets: Sequence[Target],
    scenarios: Sequence[Scenario],
    effort: Effort,
    windows: dict[str, dict[str, list[Figures]]],
) -> None:
    say(f"\n{heading()}")
    for scenario in scenarios:
        bare: list[Figures] = []
        if scenario.bare_batch and all(scenario.model.name in t.models for t in targets):
            bare.append(bare_loop(scenario.bare_batch, effort.seconds / 2))
        runs = alternate(targets, scenario, effort)
        if bare:
            # Before and after: the machine's speed moves.
            bare.append(bare_loop(scenario.bare_batch, effort.seconds / 2))
        for name, found in runs.items():
            if bare:
                for window in found:
                    rate = statistics.mean(loop["pictures_per_s"] for loop in bare)
                    window["of_bare_loop"] = window["requests_per_s"] / rate
                    window["bare_cpu_us"] = statistics.mean(loop["cpu_us"] for loop in bare)
            windows.setdefault(scenario.name, {}).setdefault(name, []).extend(found)
            title = scenario.name if name == targets[0].name else f"  {name}"
            say(row_of(title, combine(found)))


def connection_curve(target: Target) -> list[Figures]:
    """The echo over ever more connections."""
    echo = next(found for found in SCENARIOS if found.name == "echo, 64 connections")
    points = []
    for connections in CONNECTIONS:
        load = Scenario(f"echo, {connections} connections", echo.model, connections)
        figures = combine([drive(target, load, CURVE_S, 0.5)])
        del figures["quantiles_ms"]
        points.append({"connections": connections, **figures})
    return points
