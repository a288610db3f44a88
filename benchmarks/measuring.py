"""One load on one target, as often as asked, and what its runs have in common."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenarios import Scenario
from targets import Target

HERE = Path(__file__).resolve().parent

#: What a driver may take beyond its warm-up and window.
DRIVER_SLACK_S = 60.0
#: Of these the median of all runs is kept.
MEDIANS = (
    "requests_per_s",
    "p50_ms",
    "p99_ms",
    "cpu_us",
    "mb_per_s",
    "cpu_s_per_gb",
    "refusal_p50_ms",
    "refusal_p99_ms",
    "of_bare_loop",
    "bare_cpu_us",
)

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how often."""

    seconds: float
    warmup_s: float
    repeats: int


FULL = Effort(seconds=2.0, warmup_s=0.5, repeats=3)
SHORT = Effort(seconds=1.0, warmup_s=0.4, repeats=1)


def leave_in_order() -> None:
    """Let SIGTERM, which make passes on when it is killed, stop our servers, too."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


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


def drive(target: Target, scenario: Scenario, seconds: float, warmup_s: float) -> Figures:
    """One load, once, by a driver in a process of its own."""
    body = target.body(scenario.model, scenario.sent_bytes)
    with tempfile.NamedTemporaryFile() as file:
        file.write(body.data)
        file.flush()
        arguments = [target.url(scenario.model.name), f"--body-file={file.name}"]
        arguments += [f"--content-type={body.content_type}"]
        arguments += [f"--connections={scenario.connections}"]
        arguments += [f"--duration={seconds}", f"--warmup={warmup_s}"]
        arguments += [f"--pid={pid}" for pid in target.pids]
        timeout_s = seconds + warmup_s + DRIVER_SLACK_S
        figures = call(HERE / "driver.py", *arguments, timeout_s=timeout_s)
    return with_derived(figures, scenario.sent_bytes)


def with_derived(figures: Figures, body_bytes: int) -> Figures:
    """The figures in the units that people compare."""
    requests = figures["requests"]
    figures["mb_per_s"] = figures["requests_per_s"] * body_bytes / 1e6
    if requests and figures.get("cpu_s") is not None:
        figures["cpu_us"] = figures["cpu_s"] / requests * 1e6
        figures["cpu_s_per_gb"] = figures["cpu_s"] / (requests * body_bytes / 1e9)
        roles = figures["cpu_s_by_role"].items()
        figures["cpu_us_by_role"] = {role: cpu_s / requests * 1e6 for role, cpu_s in roles}
    return figures


def combine(runs: list[Figures]) -> Figures:
    """Medians of what varies, all failures together, and the spread of the main figure."""
    figures: Figures = {"windows": len(runs)}
    for name in MEDIANS:
        values = [run[name] for run in runs if name in run]
        if values:
            figures[name] = statistics.median(values)
    figures["requests"] = sum(run["requests"] for run in runs)
    failures: dict[str, int] = {}
    for run in runs:
        for kind, count in run["failures"].items():
            failures[kind] = failures.get(kind, 0) + count
    figures["failures"] = failures
    roles = sorted({role for run in runs for role in run.get("cpu_us_by_role", {})})
    figures["cpu_us_by_role"] = {
        role: statistics.median(run.get("cpu_us_by_role", {}).get(role, 0.0) for run in runs)
        for role in roles
    }
    if all("quantiles_ms" in run for run in runs):
        columns = zip(*(run["quantiles_ms"] for run in runs), strict=True)
        figures["quantiles_ms"] = [statistics.median(column) for column in columns]
    spread = [run["cpu_us"] for run in runs if "cpu_us" in run]
    if spread:
        figures["cpu_us_spread"] = [min(spread), max(spread)]
    return figures


def alternate(
    targets: Iterable[Target], scenario: Scenario, effort: Effort
) -> dict[str, list[Figures]]:
    """Windows in turn, so that all targets share the machine's weather."""
    runs: dict[str, list[Figures]] = {}
    serving = [target for target in targets if scenario.model.name in target.models]
    for _ in range(effort.repeats):
        for target in serving:
            window = drive(target, scenario, effort.seconds, effort.warmup_s)
            runs.setdefault(target.name, []).append(window)
    return runs


# -- what is printed ----------------------------------------------------------

COLUMNS = ("", "req/s", "p50 ms", "p99 ms", "cpu us/req", "failed", "")
WIDTHS = (42, 9, 9, 9, 11, 8, 0)


def row(*cells: str) -> str:
    first, *others = zip(cells, WIDTHS, strict=True)
    return first[0].ljust(first[1]) + "".join(f"{cell:>{width}}  " for cell, width in others)


def heading() -> str:
    return row(*COLUMNS).rstrip()


def row_of(title: str, figures: Figures) -> str:
    cpu_us = figures.get("cpu_us")
    return row(
        title,
        f"{figures['requests_per_s']:.0f}",
        f"{figures['p50_ms']:.2f}",
        f"{figures['p99_ms']:.2f}",
        "-" if cpu_us is None else f"{cpu_us:.0f}",
        str(sum(figures["failures"].values())),
        note_of(figures),
    ).rstrip()


def note_of(figures: Figures) -> str:
    """Who used the CPU, in us per request, and what else there is to say."""
    notes = [
        f"{role} {us:.0f}"
        for role, us in sorted(figures.get("cpu_us_by_role", {}).items())
        if us >= 0.5
    ]
    if figures["mb_per_s"] > 100:
        notes.append(f"{figures['mb_per_s']:.0f} MB/s, {figures.get('cpu_s_per_gb', 0):.2f} s/GB")
    if "of_bare_loop" in figures:
        notes.append(f"{figures['of_bare_loop']:.3f} of the bare loop")
    if figures["failures"]:
        notes.append(f"failed: {figures['failures']}")
    return ", ".join(notes)
