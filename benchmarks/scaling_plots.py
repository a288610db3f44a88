"""The plots of docs/autoscaling.md: load, workers and wait over time; needs matplotlib.

python benchmarks/scaling_plots.py [--folder docs/autoscaling] [--kind svg]

Simulated ones are played anew, from the seeds of the tests; those of real
processes are drawn from `scaling.json` (`scaling_runs.py play`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from plots import STYLE
from scaling_runs import FIGURES, MAX_WORKERS

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / "docs" / "autoscaling"
sys.path.append(str(HERE.parent / "tests" / "simulation"))

from load_shapes import bursts, constant, diurnal, ramp, recorded, sawtooth, spike, step  # type: ignore[import-not-found]  # noqa: E402
from scale_world import Model, Run, play  # type: ignore[import-not-found]  # noqa: E402

LOAD, WORKERS, READY, WAIT, TARGET = "#666666", "#e69f00", "#0072b2", "#009e73", "#d55e00"
#: A dot of the wait is the 99th percentile of so many seconds.
GRAIN_S = 5
LOAD_GRAIN_S = 3
TARGET_S = 0.25
SEED = 0


@dataclass(frozen=True)
class Story:
    """What one column of a figure shows, second by second or look by look."""

    title: str
    asked: Sequence[int]
    at_s: Sequence[float]
    wanted: Sequence[int]
    ready: Sequence[int]
    waits: Sequence[tuple[float, float]]
    most: int
    wait_name: str


def of_run(run: Run, title: str = "") -> Story:
    seconds = run.seconds
    return Story(
        title or run.shape.name,
        [second.asked for second in seconds],
        range(1, len(seconds) + 1),
        [second.wanted for second in seconds],
        [second.ready for second in seconds],
        run.waits,
        run.model.high,
        "p99 of the wait for a worker",
    )


def of_real(name: str, figures: dict[str, Any]) -> Story:
    seconds, looks = figures["seconds"], figures["looks"]
    waits = [
        (float(number), max(0.0, latency - 0.1))
        for number, second in enumerate(seconds)
        for latency in second["latencies_s"]
    ]
    return Story(
        f"{name}, real processes",
        [second["asked"] for second in seconds],
        [look["at_s"] for look in looks],
        [look["wanted"] for look in looks],
        [look["ready"] for look in looks],
        waits,
        MAX_WORKERS,
        "p99 of the answer time beyond 0.1 s",
    )


def percentiles(waits: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """In the middle of each GRAIN_S, and of the requests that came in it."""
    cells: dict[int, list[float]] = {}
    for at, waited in waits:
        cells.setdefault(int(at // GRAIN_S), []).append(waited)
    where = [(cell + 0.5) * GRAIN_S for cell in sorted(cells)]
    values = [sorted(cells[cell])[int(len(cells[cell]) * 0.99)] for cell in sorted(cells)]
    return where, [max(value, 0.001) for value in values]


def smooth(asked: Sequence[int]) -> tuple[list[int], list[float]]:
    """Requests per second, of LOAD_GRAIN_S each."""
    starts = list(range(0, len(asked), LOAD_GRAIN_S))
    parts = [asked[start : start + LOAD_GRAIN_S] for start in starts]
    return starts, [sum(part) / len(part) for part in parts]


def corners(at_s: Sequence[float], counts: Sequence[int]) -> tuple[list[float], list[int]]:
    """Where a count changes, and both ends."""
    last = len(counts) - 1
    kept = [n for n in range(last + 1) if n in (0, last) or counts[n] != counts[n - 1]]
    return [at_s[n] for n in kept], [counts[n] for n in kept]


def draw(stories: Sequence[Story], columns: int) -> Any:
    rows = -(-len(stories) // columns)
    figure = plt.figure(figsize=(4.6 * columns, 4.4 * rows), layout="constrained")
    for part, story in zip(figure.subfigures(rows, columns, squeeze=False).flat, stories,
                           strict=False):  # fmt: skip
        load, workers, wait = part.subplots(3, 1, sharex=True, height_ratios=(2, 2, 2))
        load.fill_between(*smooth(story.asked), step="post", color=LOAD, alpha=0.5)
        load.set(title=story.title, ylim=(0, None))
        ready, wanted = (corners(story.at_s, each) for each in (story.ready, story.wanted))
        workers.fill_between(*ready, step="post", color=READY, alpha=0.35)
        workers.step(*wanted, where="post", color=WORKERS, linewidth=1.5)
        workers.set(ylim=(0, story.most + 0.5))
        workers.yaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True, nbins=4))
        wait.plot(*percentiles(story.waits), ".", color=WAIT, markersize=4)
        wait.axhline(TARGET_S, color=TARGET, linewidth=1)
        wait.set(yscale="log", ylim=(0.0008, 100), xlabel="seconds")
        wait.set_yticks([0.001, 0.01, 0.1, 1, 10, 100], ["0", "0.01", "0.1", "1", "10", "100"])
        wait.minorticks_off()
        for axes, name in ((load, "requests/s"), (workers, "workers"), (wait, "p99 wait, s")):
            axes.set_ylabel(name)
        part.align_ylabels()
    handles = [
        mpl.patches.Patch(color=LOAD, alpha=0.5, label="requests"),
        mpl.lines.Line2D([], [], color=WORKERS, label="workers wanted"),
        mpl.patches.Patch(color=READY, alpha=0.35, label="workers ready"),
        mpl.lines.Line2D([], [], color=WAIT, marker=".", ls="", label=stories[0].wait_name),
        mpl.lines.Line2D([], [], color=TARGET, label="target"),
    ]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=5, columnspacing=1.2, frameon=False
    )
    return figure


def simulated() -> Any:
    shapes = (step(), ramp(), spike(), sawtooth(), bursts(SEED), diurnal(), recorded())
    stories = [of_run(play(SEED, shape, Model())) for shape in shapes]
    few = play(SEED, step(high=60.0), Model(high=3))
    stories.append(of_run(few, "too much for max_worker=3"))
    rare = play(SEED, constant(0.02, 420.0), Model(low=0, max_idle_s=10.0))
    stories.append(of_run(rare, "now and then, min_worker=0"))
    return draw(stories, columns=3)


def real() -> Any:
    figures = json.loads(FIGURES.read_text())
    return draw([of_real(name, figures[name]) for name in figures], columns=2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw load, workers and wait over time.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--kind", default="svg")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for name, make in (("simulated", simulated), ("real", real)):
            figure = make()
            figure.savefig(chosen.folder / f"{name}.{chosen.kind}", metadata={"Date": None}
                           if chosen.kind == "svg" else None)  # fmt: skip


if __name__ == "__main__":
    main()
