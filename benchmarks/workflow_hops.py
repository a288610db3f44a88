"""What a node of a workflow costs: chains of echoes beside the echo alone.

    python benchmarks/workflow_hops.py [--seconds 3] [--repeats 3]

CPU is of all processes of the server, so a chain of two holds one HTTP exchange and
two calls; latency is a client's at one connection.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Final

from measuring import Figures, drive, say
from scenarios import ECHO, Model, Scenario
from targets import OURS, ServerError, Target, local_server

from stoker.archives.war import pack_war

CHAINS: Final = (1, 2, 3)
WARMUP_S: Final = 0.3
FUNCTION: Final = """
def n{number}(data, context):
    return [] if data is None else [bytes(data[0]["body"])]
"""


def pack_chain(length: int, folder: Path) -> None:
    """A `.war` of so many echoes behind each other."""
    nodes = [f"n{number}" for number in range(length)]
    edges = "".join(f"  {one}: [{other}]\n" for one, other in pairwise(nodes))
    spec, functions = folder / "spec.yaml", folder / "functions.py"
    spec.write_text(f"models: {{}}\ndag:\n{edges or '  n0: []'}\n")
    functions.write_text("".join(FUNCTION.format(number=number) for number in range(length)))
    pack_war(f"chain{length}", spec, functions, folder)


def measure(seconds: float, repeats: int) -> dict[tuple[str, int], list[Figures]]:
    """Windows in turn, so that all share the machine's weather."""
    found: dict[tuple[str, int], list[Figures]] = {}
    with tempfile.TemporaryDirectory() as store, local_server("--workflow-store", store) as server:
        for length in CHAINS:
            pack_chain(length, Path(store))
            with server.client("management") as client:
                answer = client.ask("POST", "/workflows", url=f"chain{length}.war")
            if answer.status != 200:
                raise ServerError(answer.body.decode())
        server.register(**ECHO.query())
        paths = {"echo": "predictions", **{f"chain{n}": "wfpredict" for n in CHAINS}}
        target = Target(
            OURS,
            lambda name: f"{server.inference}/{paths[name]}/{name}",
            (server.pid,),
            frozenset(paths),
        )
        for _ in range(repeats):
            for connections in (1, 64):
                for name in paths:
                    scenario = Scenario(name, Model(name, ""), connections)
                    figures = drive(target, scenario, seconds, WARMUP_S)
                    if figures["failures"]:
                        raise ServerError(f"{name}: {figures['failures']}")
                    found.setdefault((name, connections), []).append(figures)
    return found


def table(found: dict[tuple[str, int], list[Figures]]) -> str:
    """Medians, what they are of the echo's, and whose CPU it is at 64 connections."""

    def median(name: str, connections: int, key: str) -> float:
        return float(statistics.median(each[key] for each in found[name, connections]))

    columns = ("p50 ms at 1", "CPU us at 1", "CPU us at 64", "of the echo")
    lines = [" " * 8 + "".join(f" {column:>12}" for column in columns)]
    alone = median("echo", 64, "cpu_us")
    for name in dict.fromkeys(name for name, _ in found):
        cpu_us = median(name, 64, "cpu_us")
        roles = found[name, 64][-1]["cpu_us_by_role"].items()
        lines.append(
            f"{name:8} {median(name, 1, 'p50_ms'):12.2f} {median(name, 1, 'cpu_us'):12.0f} "
            f"{cpu_us:12.0f} {cpu_us / alone:12.2f}   "
            + ", ".join(f"{role} {us:.0f}" for role, us in sorted(roles) if us >= 0.5)
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    say(table(measure(options.seconds, options.repeats)))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(1)
