"""Run the whole server's simulation: `python tests/simulation/whole_run.py --seed 7`."""

from __future__ import annotations

import argparse
import time
from collections import Counter

from whole_world import World


class SimulationFailed(AssertionError):
    """Says how to see it again."""


def run(seed: int, events: int) -> World:
    """One machine, from the first start to the last exit.

    Raises:
        SimulationFailed: A promise was broken, or our code raised.
    """
    world = World(seed)
    try:
        world.live(events)
        world.end()
    except Exception as error:
        raise SimulationFailed(_story(world, seed, events, error)) from error
    return world


def _story(world: World, seed: int, events: int, error: Exception) -> str:
    agenda = world.agenda
    lines = [f"{at:.6f} {name} {args}" for at, name, args in agenda.log]
    return "\n".join(
        [
            f"{type(error).__name__}: {error}",
            f"seed {seed}, event {agenda.events}, at {agenda.now:.6f}; the last faults:",
            *lines,
            f"again: python tests/simulation/whole_run.py --seed {seed} --events {events}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the simulation of the whole server.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--events", type=int, default=100_000, help="how many events for each")
    chosen = parser.parse_args()
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    events = 0
    for seed in range(chosen.seed, chosen.seed + chosen.seeds):
        world = run(seed, chosen.events)
        counts += world.counts
        events += world.agenda.events
    for name, count in sorted(counts.items()):
        print(f"{count:10d}  {name}")
    took_s = time.perf_counter() - started
    print(f"{events} events in {took_s:.1f} s: {took_s / events * 1e6:.1f} us each")


if __name__ == "__main__":
    main()
