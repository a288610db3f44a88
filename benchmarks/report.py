"""docs/performance.md: the parts that a run writes.

    python benchmarks/report.py [RESULTS]

The page has generated parts between comments; the words around them are
written by people and stay:

    <!-- generated: table -->  ...  <!-- end: table -->
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import results
from measuring import Figures

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)

OURS = "stoker"
BARE = "bare ASGI"
LEAST = "least server"
Results = dict[str, Any]


class PageError(Exception):
    """The page lacks a part that we write, or asks for one that we do not know."""


def write(figures: Results, page: Path = PAGE) -> None:
    page.write_text(fill(page.read_text(), {name: part(figures) for name, part in PARTS.items()}))


def fill(text: str, parts: Mapping[str, str]) -> str:
    """Put each part between its comments."""
    asked = {found[2] for found in PART.finditer(text)}
    if asked != set(parts):
        raise PageError(f"the page's parts differ from ours: {sorted(asked ^ set(parts))}")
    return PART.sub(lambda found: f"{found[1]}\n{parts[found[2]].strip()}\n\n{found[3]}", text)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def figures_of(figures: Results, part: str) -> Any:
    return figures.get(part, {}).get("figures", {})


def number(value: float | None, digits: int = 3) -> str:
    """Three digits are more than the machine holds still for."""
    if value is None:
        return "never"
    if value >= 10 ** (digits - 1):
        return f"{round(value, digits - len(str(int(value)))):,.0f}"
    return f"{value:.{digits}g}"


# -- the parts ----------------------------------------------------------------


def machine(figures: Results) -> str:
    about = figures["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    measured = {
        name: f"{part['at']} ({part['commit']})"
        for name, part in figures.items()
        if name not in ("machine", "peers")
    }
    when = "; ".join(f"{name} {moment}" for name, moment in measured.items())
    return (
        f"Measured on {about['cpus']} CPUs ({about['cpu']}), {about['memory_gb']} GB, Linux"
        f" {about['kernel']}, Python {about['python']}; {libraries}.\n\n"
        f"Part of the run, when, at which commit: {when}."
    )


def names_of(figures: Results) -> list[str]:
    """Ours, the peers that ran in their order, and the bare echo."""
    rows = figures_of(figures, "steady")["rows"]
    found: list[str] = []
    for by_target in rows.values():
        found += [name for name in by_target if name not in found]
    peers = [name for name in found if name not in (OURS, BARE)]
    return [OURS, *peers, BARE]


def main_table(figures: Results) -> str:
    names = names_of(figures)
    lines = []
    for scenario, by_target in figures_of(figures, "steady")["rows"].items():
        cells = [cell_of(scenario, by_target.get(name)) for name in names]
        lines.append([scenario, *cells])
    lines += life_rows(figures, names)
    lines += overload_rows(figures, names)
    return table(["", *(f"**{name}**" if name == OURS else name for name in names)], lines)


def cell_of(scenario: str, figures: Figures | None) -> str:
    """What the scenario is about, and what went wrong."""
    if not figures or not figures["requests"]:
        return "-"
    if "of_bare_loop" in figures:
        cell = f"{figures['of_bare_loop']:.2f} of the bare loop, {number(figures['cpu_us'])} us"
    elif "MiB" in scenario:
        cell = f"{number(figures['mb_per_s'])} MB/s, {figures['cpu_s_per_gb']:.2f} cpu-s/GB"
    else:
        cell = f"{number(figures['cpu_us'])} us, {number(figures['requests_per_s'])}/s"
        if "1 connection" in scenario:
            cell = f"{number(figures['cpu_us'])} us, p50 {figures['p50_ms']:.2f} ms"
    failed = sum(figures["failures"].values())
    return cell + (f", {failed} failed" if failed else "")


def life_rows(figures: Results, names: Sequence[str]) -> list[list[str]]:
    lives = figures_of(figures, "lives")
    rows: list[tuple[str, Callable[[Figures], str]]] = [
        ("cold start to the first answer", lambda f: f"{f['cold start']['first_answer_s']:.2f} s"),
        ("idle memory, all processes (PSS)", _idle),
        ("worker kill -9 to the next answer; failed", lambda f: _kill(f["worker kill"])),
        ("same, worker imports torch", lambda f: _kill(f["worker kill, torch imported"])),
    ]
    lines = [[title, *(_try(cell, lives.get(name)) for name in names)] for title, cell in rows]
    crowds = figures_of(figures, "crowds").get("with_workers", {})
    title = "50 models, a worker each: ready; PSS"
    lines.append([title, *(_try(_crowd, crowds.get(name)) for name in names)])
    return lines


def _idle(figures: Figures) -> str:
    return f"{figures['cold start']['idle_pss_bytes'] / 1e6:.0f} MB"


def _kill(figures: Figures) -> str:
    if figures["next_answer_s"] is None:
        return f"never; {figures['failed_requests']:.0f}"
    return f"{number(figures['next_answer_s'] * 1000)} ms; {figures['failed_requests']:.0f}"


def _crowd(figures: Figures) -> str:
    return f"{figures['ready_s']:.1f} s; {figures['pss_bytes'] / 1e6:,.0f} MB"


def _overload(figures: Figures) -> str:
    refusals = "none"
    if figures.get("refused_per_s"):
        refusals = f"{number(figures.get('refusal_p99_ms', 0))} ms"
    good = number(figures["requests_per_s"])
    return f"{good}/s, p99 {number(figures['p99_ms'])} ms; refusal p99 {refusals}"


def _try(cell: Callable[[Figures], str], figures: Figures | None) -> str:
    try:
        return cell(figures) if figures else "-"
    except KeyError:
        return "-"


def overload_rows(figures: Results, names: Sequence[str]) -> list[list[str]]:
    found = figures_of(figures, "overload")
    title = "overload: 256 connections, 5 ms handler"
    return [[title, *(_try(_overload, found.get(name)) for name in names)]]


def peers(figures: Results) -> str:
    about = figures_of(figures, "peers")
    failed = figures_of(figures, "steady").get("failed", {})
    lines = []
    for name, versions in about["versions"].items():
        wanted = ", ".join(f"{package} {version}" for package, version in versions.items())
        lines.append([name, wanted, about["settings"][name], failed.get(name, "")])
    lines += [[name, "-", "", reason] for name, reason in about["missing"].items()]
    return table(["peer", "versions", "settings", "what went wrong"], lines)


def roles(figures: Results) -> str:
    """Microseconds per request by process, ours."""
    rows = figures_of(figures, "steady")["rows"]
    known = ("frontend", "supervisor", "worker")
    lines = []
    for scenario, by_target in rows.items():
        ours = by_target.get(OURS)
        if ours:
            by_role = ours["cpu_us_by_role"]
            low, high = ours["cpu_us_spread"]
            cells = [number(by_role.get(role, 0.0)) for role in known]
            spread = f"{number(low)} - {number(high)}"
            lines.append([scenario, *cells, number(ours["cpu_us"]), spread])
    return table(["us per request", *known, "all", "lowest - highest window"], lines)


def limit(figures: Results) -> str:
    found = figures_of(figures, "limits")
    lines = []
    for name in ("bare ASGI", "HTTP only", "everything, batch 1", "everything, batch 32"):
        layer = found[name]
        by_role = {role: us for role, us in layer["cpu_us_by_role"].items() if us >= 0.5}
        split = ", ".join(f"{role} {number(us)}" for role, us in by_role.items())
        is_whole = name.startswith("everything")
        lines.append([name, number(layer["cpu_us"]), split if is_whole else ""])
    for name, title in (("echo", "wire only, batch 1"), ("echo32", "wire only, batch 32")):
        by_role = found[f"wire only, {name}"]["cpu_us_by_role"]
        split = ", ".join(f"{role} {number(us)}" for role, us in by_role.items())
        lines.append([title, number(sum(by_role.values())), split])
    for size, layer in found["handler only"].items():
        split = f"the handler itself {number(layer['handler_us'])}"
        lines.append([f"handler only, batch {size}", number(layer["contract_us"]), split])
    return table(["layer", "us per request", "of which"], lines)


def network(figures: Results) -> str:
    found = figures_of(figures, "limits")["network"]
    alone_us = found[OURS]["bare_cpu_us"]
    lines = [["bare loop", number(alone_us), "", ""]]
    for name in (LEAST, OURS):
        row = found[name]
        rate = f"{number(row['requests_per_s'])}/s"
        lines.append([name, number(row["cpu_us"]), rate, f"{row['of_bare_loop']:.2f}"])
    return table(["one picture at a time", "us per picture", "rate", "of the bare loop"], lines)


def growth(figures: Results) -> str:
    found = figures_of(figures, "growth")
    lines = []
    for model in ("echo", "echo32"):
        first, *_, last = found["connections"][model]
        lines.append(
            [
                f"1 to {last['connections']:,} connections, {model}",
                f"{number(first['cpu_us'])} to {number(last['cpu_us'])} us",
                f"{number(first['requests_per_s'])} to {number(last['requests_per_s'])}/s",
                f"p99 {number(first['p99_ms'])} to {number(last['p99_ms'])} ms",
            ]
        )
    first, *_, last = found["workers"]
    lines.append(
        [
            f"1 to {last['workers']} workers, 5 ms handler",
            f"{number(first['cpu_us'])} to {number(last['cpu_us'])} us",
            f"{number(first['requests_per_s'])} to {number(last['requests_per_s'])}/s",
            f"ready after {first['ready_s']:.2f} to {last['ready_s']:.2f} s,"
            f" {first['pss_bytes'] / 1e6:.0f} to {last['pss_bytes'] / 1e6:.0f} MB",
        ]
    )
    first, *_, last = figures_of(figures, "crowds")["registered"]
    each = (last["pss_bytes"] - first["pss_bytes"]) / last["models"] / 1000
    lines.append(
        [
            f"0 to {last['models']:,} registered models",
            f"{number(first['cpu_us'])} to {number(last['cpu_us'])} us for the echo beside them",
            f"{each:.1f} kB each",
            f"p99 of the echo {first['p99_ms']:.2f} to {last['p99_ms']:.2f} ms",
        ]
    )
    first, *_, last = found["bodies"]
    best = max(found["bodies"], key=lambda point: point["mb_per_s"])
    lines.append(
        [
            "100 B to 100 MiB bodies, 4 connections",
            f"{number(first['cpu_us'])} us to {number(last['cpu_us'])} us",
            f"at most {number(best['mb_per_s'])} MB/s, at {best['body_bytes'] / 2**20:g} MiB",
            f"{last['cpu_s_per_gb']:.2f} cpu-s/GB at the end",
        ]
    )
    return table(["from - to", "cost", "rate", "besides"], lines)


PARTS: dict[str, Callable[[Results], str]] = {
    "machine": machine,
    "table": main_table,
    "peers": peers,
    "roles": roles,
    "limit": limit,
    "network": network,
    "growth": growth,
}


if __name__ == "__main__":
    write(results.load(Path(sys.argv[1]) if len(sys.argv) > 1 else results.FILE))
