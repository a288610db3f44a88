"""Run the simulation: `python tests/simulation/sim_run.py --seed 7 --events 100000`."""

from __future__ import annotations

import argparse
import time
from collections import Counter

from sim_faults import CALM
from sim_world import World

#: Longer than every back-off and timeout that `sim_faults.random_spec` allows.
REST_S = 90.0


class SimulationFailed(AssertionError):
    """Says how to see it again."""


def run(seed: int, events: int) -> World:
    """One world, from its first registration to its last exit.

    Raises:
        SimulationFailed: A promise was broken, or the engine raised.
    """
    world = World(seed)
    try:
        _live(world, events)
        if world.is_open and seed % 3 == 0:
            world.stop(world.rng.choice((0.0, 0.5, 20.0)))
        else:
            _calm_down(world)
        _end(world)
    except Exception as error:
        raise SimulationFailed(_story(world, seed, error)) from error
    return world


def _live(world: World, events: int) -> None:
    while world.events < events:
        world.step()


def _calm_down(world: World) -> None:
    """No more faults, jobs or calls: everything must come right by itself."""
    world.is_open, world.is_calm, world.faults = False, True, CALM
    _rest(world)
    for served in list(world.engine.registry):
        crew = served.crew
        world.scale(served.spec.key, crew.min_workers, crew.max_workers, None, True)
    world.turn()
    _rest(world)
    world.judge.check_calm()


def _end(world: World) -> None:
    """Everything goes, by unregistering or by stopping."""
    engine = world.engine
    if not engine.is_stopping and world.rng.random() < 0.5:
        while names := engine.registry.names():
            for name in names:
                for served in engine.registry.all_versions(name):
                    world.unregister(name, served.spec.version, world.rng.choice((0.2, 10.0)))
        world.turn()
    else:
        world.stop(world.rng.choice((0.0, 5.0)))
    _rest(world)
    world.judge.check_empty()


def _rest(world: World) -> None:
    until = world.now + REST_S
    while world.now < until:
        world.step()


def _story(world: World, seed: int, error: Exception) -> str:
    lines = [f"{at:.6f} {name} {args}" for at, name, args in world.log]
    return "\n".join(
        [
            f"{type(error).__name__}: {error}",
            f"seed {seed}, event {world.events}, at {world.now:.6f}; the last events:",
            *lines,
            f"again: python tests/simulation/sim_run.py --seed {seed} --events {world.events}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the simulation of the supervisor's engine.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--events", type=int, default=20_000, help="how many events for each")
    chosen = parser.parse_args()
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    events = 0
    for seed in range(chosen.seed, chosen.seed + chosen.seeds):
        world = run(seed, chosen.events)
        counts += world.counts
        events += world.events
    for name, count in sorted(counts.items()):
        print(f"{count:10d}  {name}")
    took_s = time.perf_counter() - started
    print(f"{events} events in {took_s:.1f} s: {took_s / events * 1e6:.1f} us each")


if __name__ == "__main__":
    main()
