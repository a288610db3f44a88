"""Measure a stoker, and any peer beside it, with the same loads.

    python benchmarks/bench.py [--quick] [--only TEXT] [--peer NAME=BASE_URL ...]

Prints a table while it goes and writes everything as JSON.  What the figures
mean and how to set up a peer: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from process_tree import roots_listening_on, wait_idle
from scenarios import DIGITS, MODELS, SCENARIOS, SERVER_FLAGS, Scenario

HERE = Path(__file__).resolve().parent
DIGITS_FOLDER = Path(".build/digits").resolve()
DIGITS_STORE = DIGITS_FOLDER / "model-store"
DIGITS_EXAMPLE = HERE.parent / "examples" / "digits"
sys.path.append(str(HERE.parent / "examples"))

from local_server import LocalServer, ServerError  # noqa: E402

#: What a driver may take beyond its warm-up and window.
DRIVER_SLACK_S = 60.0
#: Of these the median of all repeats is kept; the other figures are the last repeat's.
MEDIANS = ("requests_per_s", "p50_ms", "p99_ms", "cpu_s_per_1000")

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load; without pids its CPU time is not known."""

    name: str
    base_url: str
    pids: tuple[int, ...]

    def url(self, model: str) -> str:
        if "{model}" in self.base_url:
            return self.base_url.replace("{model}", model)
        return f"{self.base_url.rstrip('/')}/predictions/{model}"


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how often."""

    seconds: float
    warmup_s: float
    repeats: int


FULL = Effort(seconds=6.0, warmup_s=1.5, repeats=3)
QUICK = Effort(seconds=2.0, warmup_s=0.7, repeats=1)


def say(text: str = "") -> None:
    print(text, flush=True)


def call(script: Path, *arguments: str, timeout_s: float) -> Figures:
    """Run one of our scripts in its own process and read the JSON it prints."""
    finished = subprocess.run(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        timeout=timeout_s,
        check=True,
    )
    figures: Figures = json.loads(finished.stdout)
    return figures


def drive(target: Target, scenario: Scenario, effort: Effort) -> Figures:
    """One load, once."""
    arguments = [target.url(scenario.model.name), "--connections", str(scenario.connections)]
    arguments += ["--duration", str(effort.seconds), "--warmup", str(effort.warmup_s)]
    if scenario.body_bytes:
        arguments += ["--body-bytes", str(scenario.body_bytes)]
    else:
        arguments += ["--body-file", str(DIGITS_EXAMPLE / "seven.png"), "--content-type=image/png"]
    for pid in target.pids:
        arguments += ["--pid", str(pid)]
    timeout_s = effort.seconds + effort.warmup_s + DRIVER_SLACK_S
    return call(HERE / "driver.py", *arguments, timeout_s=timeout_s)


def measure(target: Target, scenario: Scenario, effort: Effort) -> Figures:
    """One load as often as asked; medians of what varies, all failures together."""
    runs = [drive(target, scenario, effort) for _ in range(effort.repeats)]
    figures = {"scenario": scenario.name, "target": target.name, **runs[-1]}
    for name in MEDIANS:
        if all(name in run for run in runs):
            figures[name] = statistics.median(run[name] for run in runs)
    failures: dict[str, int] = {}
    for run in runs:
        for kind, count in run["failures"].items():
            failures[kind] = failures.get(kind, 0) + count
    figures["failures"] = failures
    figures["mib_per_s"] = figures["requests_per_s"] * scenario.body_bytes / 2**20
    figures["runs"] = runs
    return figures


# -- what is printed ----------------------------------------------------------

COLUMNS = ("", "req/s", "p50 ms", "p99 ms", "cpu us/req", "failed", "")
WIDTHS = (40, 9, 9, 9, 11, 8, 0)


def row(*cells: str) -> str:
    first, *others = zip(cells, WIDTHS, strict=True)
    return first[0].ljust(first[1]) + "".join(f"{cell:>{width}}  " for cell, width in others)


def row_of(figures: Figures, title: str) -> str:
    cpu = figures.get("cpu_s_per_1000")
    return row(
        title,
        f"{figures['requests_per_s']:.0f}",
        f"{figures['p50_ms']:.2f}",
        f"{figures['p99_ms']:.2f}",
        "-" if cpu is None else f"{cpu * 1000:.0f}",
        str(sum(figures["failures"].values())),
        note_of(figures),
    ).rstrip()


def note_of(figures: Figures) -> str:
    """Who used the CPU, in us per request, and what else the scenario is about."""
    notes = []
    if figures.get("requests"):
        roles = figures["cpu_s_by_role"].items()
        per_role = {role: cpu_s / figures["requests"] * 1e6 for role, cpu_s in roles}
        notes += [f"{role} {us:.0f}" for role, us in sorted(per_role.items()) if us >= 0.5]
    if figures["mib_per_s"] > 10:
        notes.append(f"{figures['mib_per_s']:.0f} MiB/s")
    if figures.get("of_bare_loop"):
        bare = figures["requests_per_s"] / figures["of_bare_loop"]
        notes.append(f"{figures['of_bare_loop']:.2f} of the bare loop's {bare:.0f}")
    if figures["failures"]:
        notes.append(f"failed: {figures['failures']}")
    return ", ".join(notes)


# -- the run ------------------------------------------------------------------


def steady(targets: list[Target], scenarios: list[Scenario], effort: Effort) -> list[Figures]:
    """Every scenario on every target, target by target so that they share the weather."""
    results = []
    say(row(*COLUMNS).rstrip())
    for scenario in scenarios:
        bare = bare_loop(effort) if scenario.compares else None
        for target in targets:
            figures = measure(target, scenario, effort)
            if bare is not None:
                figures["of_bare_loop"] = figures["requests_per_s"] / bare
            results.append(figures)
            title = scenario.name if target is targets[0] else f"  {target.name}"
            say(row_of(figures, title))
    return results


def bare_loop(effort: Effort) -> float:
    arguments = [str(DIGITS_FOLDER), "--batch-size", str(DIGITS.batch_size), "--seconds", "2"]
    figures = call(HERE / "bare_loop.py", *arguments, timeout_s=DRIVER_SLACK_S)
    return float(figures["pictures_per_s"])


def lives(effort: Effort) -> dict[str, Figures]:
    """Cold start and worker kill; each run needs a server of its own."""
    from lives import cold_start, worker_kill

    results = {}
    scenarios: tuple[tuple[str, Callable[[], Figures]], ...] = (
        ("cold start", cold_start),
        ("worker kill -9", worker_kill),
    )
    for name, scenario in scenarios:
        runs = [scenario() for _ in range(effort.repeats)]
        figures = {
            key: statistics.median(run[key] for run in runs)
            for key, value in runs[0].items()
            if isinstance(value, (int, float))
        }
        results[name] = {**figures, "runs": runs}
    start, kill = results["cold start"], results["worker kill -9"]
    say(
        f"\ncold start: listening after {start['listening_s']:.2f} s,"
        f" first answer after {start['first_answer_s']:.2f} s,"
        f" idle {start['idle_pss_bytes'] / 1e6:.0f} MB PSS"
    )
    say(
        f"worker kill -9: next answer after {kill['next_answer_s'] * 1000:.0f} ms,"
        f" failed requests {kill['failed_requests']:.0f}"
    )
    return results


def machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load_average": os.getloadavg(),
    }


def peers(options: argparse.Namespace) -> list[Target]:
    known_pids = dict(pair.split("=", 1) for pair in options.peer_pid)
    found = []
    for pair in options.peer:
        name, _, base_url = pair.partition("=")
        if not base_url:
            raise SystemExit(f"--peer {pair}: write it as NAME=BASE_URL")
        if name in known_pids:
            pids = [int(known_pids[name])]
        else:
            pids = roots_listening_on(urlsplit(base_url.replace("{model}", "x")).port or 80)
        say(f"peer {name}: {base_url}, processes below {pids or 'unknown: no CPU figures'}")
        found.append(Target(name, base_url, tuple(pids)))
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter and rougher")
    parser.add_argument("--only", default="", help="only scenarios whose name contains this")
    parser.add_argument("--seconds", type=float, help="length of one window")
    parser.add_argument("--repeat", type=int, help="windows per scenario; the median counts")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=BASE_URL")
    parser.add_argument("--peer-pid", action="append", default=[], metavar="NAME=PID")
    parser.add_argument("--json", type=Path, default=Path(".build/bench/latest.json"))
    return parser.parse_args()


def main() -> int:
    options = parse()
    base = QUICK if options.quick else FULL
    effort = Effort(options.seconds or base.seconds, base.warmup_s, options.repeat or base.repeats)
    others = peers(options)
    chosen = [scenario for scenario in SCENARIOS if options.only in scenario.name]
    wants_lives = not options.only or options.only in "cold start, worker kill"
    windows = len(chosen) * (1 + len(others)) * effort.repeats
    expected_s = windows * (effort.seconds + effort.warmup_s + 0.5) + wants_lives * 20
    say(f"preparing; then about {expected_s:.0f} s of measuring on {os.cpu_count()} CPUs\n")

    if any(scenario.model is DIGITS for scenario in chosen):
        subprocess.run(
            [sys.executable, str(DIGITS_EXAMPLE / "pack.py"), str(DIGITS_FOLDER)], check=True
        )
    DIGITS_STORE.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine()}
    if chosen:
        with ExitStack() as stack:
            server = stack.enter_context(
                LocalServer(*SERVER_FLAGS, model_store=DIGITS_STORE, python_path=(HERE,))
            )
            for model in MODELS:
                if any(scenario.model is model for scenario in chosen):
                    server.register(**model.query())
            ours = Target("stoker", server.inference, (server.pid,))
            wait_idle(ours.pids)
            report["steady"] = steady([ours, *others], chosen, effort)
    if wants_lives:
        report["lives"] = lives(effort)

    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    say(f"\neverything as JSON: {options.json}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
