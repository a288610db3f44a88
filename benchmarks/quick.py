"""`make bench-quick`: CPU per request as a ratio to a bare ASGI echo in the same run.

    python benchmarks/quick.py [--short] [--update]

Machines differ by much and move by a quarter; the ratio to an echo taken in
turn on the same machine holds better.  Fails only when a ratio is 1.6 times
worse than the committed one (`ratios.json`), and again on a second run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from measuring import Effort, drive, leave_in_order, say
from scenarios import ECHO, SCENARIOS, SIZE, Scenario
from targets import BARE, OURS, ServerError, bare_asgi, local_server, ours

RATIOS = Path(__file__).resolve().parent / "ratios.json"
#: Machines move by a quarter; what is worse than this is ours.
TOLERANCE: Final = 1.6
FULL = Effort(seconds=2.0, warmup_s=0.3, repeats=3)
SHORT = Effort(seconds=1.0, warmup_s=0.2, repeats=2)

QUICK = tuple(scenario for scenario in SCENARIOS if scenario.is_quick)
Ratios = dict[str, float]


def yardstick(scenario: Scenario) -> Scenario:
    """The bare echo's load: as many connections; large bodies are compared per byte at 1 MiB."""
    if is_large(scenario):
        return Scenario("bare, 1 MiB in", SIZE, scenario.connections, body_bytes=1 << 20)
    return Scenario("bare echo", ECHO, scenario.connections)


def is_large(scenario: Scenario) -> bool:
    return scenario.sent_bytes >= 1 << 20


def measure(effort: Effort, chosen: tuple[Scenario, ...] = QUICK) -> Ratios:
    """Median of the ratios of neighbouring windows; bytes for bytes where bodies are large."""
    ratios: dict[str, list[float]] = {scenario.name: [] for scenario in chosen}
    with local_server() as server, bare_asgi() as bare:
        us = ours(
            server, tuple({scenario.model.name: scenario.model for scenario in chosen}.values())
        )
        for _ in range(effort.repeats):
            for scenario in chosen:
                unit = "cpu_s_per_gb" if is_large(scenario) else "cpu_us"
                theirs = drive(bare, yardstick(scenario), effort.seconds / 2, effort.warmup_s)
                own = drive(us, scenario, effort.seconds, effort.warmup_s)
                if not own["requests"] or not theirs["requests"]:
                    raise ServerError(f"{scenario.name}: no answers: {own['failures']}")
                if own["failures"]:
                    say(f"{scenario.name}: failed {own['failures']}")
                ratios[scenario.name].append(own[unit] / theirs[unit])
    return {name: round(statistics.median(found), 2) for name, found in ratios.items()}


def worse(ratios: Mapping[str, float], committed: Mapping[str, float]) -> list[str]:
    """Names of those that are worse than the committed ones by more than machines move."""
    return [
        name
        for name, ratio in ratios.items()
        if name in committed and ratio > committed[name] * TOLERANCE
    ]


def table(ratios: Mapping[str, float], committed: Mapping[str, float]) -> str:
    lines = [f"{f'CPU per request, {OURS} / {BARE} echo':<42}{'now':>8}{'committed':>12}"]
    for name, ratio in ratios.items():
        before = f"{committed[name]:.2f}" if name in committed else "-"
        lines.append(f"{name:<42}{ratio:>8.2f}{before:>12}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="for CI: half as long")
    parser.add_argument("--update", action="store_true", help="commit these ratios")
    options = parser.parse_args()
    effort = SHORT if options.short else FULL
    committed: Ratios = json.loads(RATIOS.read_text()) if RATIOS.exists() else {}
    started = time.perf_counter()
    ratios = measure(effort)
    say(table(ratios, committed))
    if options.update:
        RATIOS.write_text(json.dumps(ratios, indent=2) + "\n")
        return 0
    if suspects := worse(ratios, committed):
        say(f"\n{TOLERANCE} times worse than committed, measured once more: {', '.join(suspects)}")
        chosen = tuple(scenario for scenario in QUICK if scenario.name in suspects)
        again = measure(effort, chosen)
        say(table(again, committed))
        if still := worse(again, committed):
            say(f"\nworse again: {', '.join(still)}")
            return 1
    say(f"took {time.perf_counter() - started:.0f} s; large bodies are compared per byte")
    return 0


if __name__ == "__main__":
    leave_in_order()
    try:
        sys.exit(main())
    except ServerError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
