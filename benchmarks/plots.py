"""The plots of docs/performance.md, from the figures of a run; needs matplotlib.

python benchmarks/plots.py [RESULTS] [--folder docs/performance] [--kind svg]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import results
from driver import QUANTILES
from matplotlib.ticker import FuncFormatter, NullFormatter
from report import BARE, OURS, Results, figures_of, names_of

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "performance"

#: Told apart by people who see colours differently, too; ours is the thick one.
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8c510a",
    "#5e3c99",
    "#666666",
)
MARKERS = "osD^vP*X<"
ROLE_COLOURS = {"frontend": "#0072b2", "supervisor": "#e69f00", "worker": "#009e73"}

STYLE = {
    "font.size": 10,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "svg.hashsalt": "stoker",
}


def plain(value: float, _: Any = None) -> str:
    """1, 1024, 10k: no powers of ten."""
    if value < 2000:
        return f"{value:g}"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def logarithmic(axis: Any, ticks: Sequence[float] | None = None) -> None:
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_formatter(NullFormatter())
    if ticks is not None:
        axis.set_ticks(ticks)


def look(name: str, names: Sequence[str]) -> dict[str, Any]:
    number = names.index(name)
    style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)]}
    if name == OURS:
        style |= {"linewidth": 3, "zorder": 5}
    if name == BARE:
        style |= {"linestyle": "--", "color": "#666666"}
    return style


def throughput(figures: Results) -> Any:
    """Requests per second and CPU per request over connections, everybody."""
    curves = figures_of(figures, "steady")["curves"]
    names = names_of(figures)
    figure, (rate, cost) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for name in names:
        points = [point for point in curves.get(name, []) if point["requests"]]
        count = [point["connections"] for point in points]
        style = look(name, names) | {"marker": MARKERS[names.index(name) % len(MARKERS)]}
        rate.plot(count, [point["requests_per_s"] for point in points], label=name, **style)
        cost.plot(count, [point["cpu_us"] for point in points], label=name, **style)
    for axes, title in ((rate, "requests per second"), (cost, "CPU us per request")):
        axes.set(xscale="log", yscale="log", xlabel="connections", title=title)
        logarithmic(axes.xaxis, [1, 4, 16, 64, 256, 1024])
        logarithmic(axes.yaxis)
    cost.yaxis.set_ticks([50, 100, 200, 500, 1000, 2000, 5000, 10000])
    rate.yaxis.set_ticks([100, 200, 500, 1000, 2000, 5000, 10000])
    cost.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.suptitle("100 B echo, batch 1, one worker")
    return figure


def latency(figures: Results) -> Any:
    """What share of the answers is there after how long."""
    rows = figures_of(figures, "steady")["rows"]
    names = names_of(figures)
    chosen = ("echo, 1 connection", "echo, 64 connections")
    figure, both = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True, layout="constrained")
    for axes, scenario in zip(both, chosen, strict=True):
        for name in names:
            values = rows.get(scenario, {}).get(name, {}).get("quantiles_ms")
            if values:
                axes.plot(values, QUANTILES, label=name, **look(name, names))
        axes.set(xscale="log", xlabel="ms", title=scenario, ylim=(0, 1.01))
        logarithmic(axes.xaxis)
    both[0].set_ylabel("share of answers")
    both[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def processes(figures: Results) -> Any:
    """Whose CPU a request uses, ours scenario by scenario."""
    rows = figures_of(figures, "steady")["rows"]
    names = [name for name in rows if "MiB" not in name and "CNN" not in name]
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(names) + 1.6), layout="constrained")
    left = [0.0] * len(names)
    for role, colour in ROLE_COLOURS.items():
        shares = [rows[name][OURS]["cpu_us_by_role"].get(role, 0.0) for name in names]
        bars = axes.barh(names, shares, left=left, label=role, color=colour, height=0.6)
        widest = max(rows[name][OURS]["cpu_us"] for name in names)
        labels = [f"{share:.0f}" if share > widest / 30 else "" for share in shares]
        axes.bar_label(bars, labels, label_type="center", color="white", fontsize=9)
        left = [before + share for before, share in zip(left, shares, strict=True)]
    for name, end in zip(names, left, strict=True):
        axes.text(end + max(left) * 0.01, name, f"{end:.0f}", va="center")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="CPU us per request", title="stoker: CPU per request by process")
    axes.legend(frameon=False, loc="lower right")
    return figure


def growth_connections(figures: Results) -> Any:
    curves = figures_of(figures, "growth")["connections"]
    figure, (cost, wait) = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained")
    labels = {"echo": "batch 1", "echo32": "batch 32 / 2 ms"}
    for number, (model, points) in enumerate(curves.items()):
        count = [point["connections"] for point in points]
        style = {"color": COLOURS[number], "marker": "o"}
        cost.plot(count, [point["cpu_us"] for point in points], label=labels[model], **style)
        wait.plot(count, [point["p50_ms"] for point in points], label="p50", **style)
        p99 = [point["p99_ms"] for point in points]
        wait.plot(count, p99, label="p99", **style | {"linestyle": ":"})
    for axes in (cost, wait):
        axes.set(xscale="log", yscale="log", xlabel="connections")
        logarithmic(axes.xaxis, [1, 4, 16, 64, 256, 1024])
        logarithmic(axes.yaxis)
    cost.set_title("CPU us per request")
    cost.yaxis.set_ticks([50, 100, 200, 400, 800])
    cost.legend(frameon=False)
    wait.set_title("ms: p50 (solid) and p99 (dotted)")
    return figure


def growth_workers(figures: Results) -> Any:
    points = figures_of(figures, "growth")["workers"]
    count = [point["workers"] for point in points]
    figure, (rate, ready, memory) = plt.subplots(1, 3, figsize=(12, 3.7), layout="constrained")
    rate.plot(count, [point["requests_per_s"] for point in points], marker="o", label="measured")
    ideal = [points[0]["requests_per_s"] * workers for workers in count]
    rate.plot(count, ideal, "--", color="#999999", label="one worker's, times workers")
    rate.set(yscale="log", title="answers/s, 5 ms handler")
    rate.legend(frameon=False)
    logarithmic(rate.yaxis)
    ready.plot(count, [point["ready_s"] for point in points], marker="o")
    ready.set(title="s until all are ready", ylim=(0, None))
    memory.plot(count, [point["pss_bytes"] / 1e6 for point in points], marker="o")
    memory.set(title="MB, all processes (PSS)", ylim=(0, None))
    for axes in (rate, ready, memory):
        axes.set(xscale="log", xlabel="workers")
        logarithmic(axes.xaxis, count)
    return figure


def growth_models(figures: Results) -> Any:
    points = figures_of(figures, "crowds")["registered"]
    count = [point["models"] for point in points]
    figure, (memory, cost, wait) = plt.subplots(1, 3, figsize=(12, 3.7), layout="constrained")
    memory.plot(count, [point["pss_bytes"] / 1e6 for point in points], marker="o")
    memory.set(title="MB, all processes (PSS)", ylim=(0, None))
    cost.plot(count, [point["cpu_us"] for point in points], marker="o")
    cost.set(title="CPU us per echo beside them", ylim=(0, None))
    wait.plot(count, [point["p99_ms"] for point in points], marker="o")
    wait.set(title="p99 ms of that echo", ylim=(0, None))
    for axes in (memory, cost, wait):
        axes.margins(y=0.15)
        axes.set(ylim=(0, axes.get_ylim()[1] * 1.1))
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(-0.4, 1500)
        axes.set_xlabel("registered models without workers")
        logarithmic(axes.xaxis, count)
    return figure


def growth_bodies(figures: Results) -> Any:
    points = [p for p in figures_of(figures, "growth")["bodies"] if p["requests"]]
    size = [point["body_bytes"] for point in points]
    figure, (rate, cost) = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained")
    rate.plot(size, [point["mb_per_s"] for point in points], marker="o")
    rate.set(yscale="log", title="MB/s in, 4 connections")
    cost.plot(size, [point["cpu_s_per_gb"] for point in points], marker="o")
    cost.set(yscale="log", title="CPU seconds per GB")
    for axes in (rate, cost):
        axes.set(xscale="log", xlabel="bytes of the body")
        axes.axvline(64 * 1024, color="#999999", linestyle="--")
        logarithmic(axes.xaxis, [100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8])
        logarithmic(axes.yaxis)
    cost.text(64 * 1024 * 1.2, cost.get_ylim()[1] * 0.2, "shared memory\nfrom 64 KiB", fontsize=9)
    return figure


PLOTS: dict[str, Callable[[Results], Any]] = {
    "throughput": throughput,
    "latency": latency,
    "processes": processes,
    "growth-connections": growth_connections,
    "growth-workers": growth_workers,
    "growth-models": growth_models,
    "growth-bodies": growth_bodies,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=results.FILE)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--kind", default="svg", choices=("svg", "png"))
    options = parser.parse_args()
    figures = results.load(options.results)
    options.folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for name, plot in PLOTS.items():
            figure = plot(figures)
            # No date: the same figures make the same file.
            about = {"Date": None} if options.kind == "svg" else {}
            figure.savefig(options.folder / f"{name}.{options.kind}", metadata=about)
            plt.close(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
