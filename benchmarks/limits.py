"""The limit: what the same request costs with each layer alone, and where the rest goes."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from pathlib import Path

from measuring import Effort, Figures, call, combine, drive, say
from scenarios import CNN, ECHO, ECHO_32, SCENARIOS, Scenario
from steady import run_round
from targets import LocalServer, Target, bare_asgi, local_server, ours, script_server

HERE = Path(__file__).resolve().parent
LAYERS = HERE / "layers"
CONNECTIONS = 64
#: One picture at a time.
NETWORK = next(found for found in SCENARIOS if found.model is CNN)
LEAST = "least server"


def measure(effort: Effort) -> Figures:
    """Rounds over all layers, so that they share the machine's weather."""
    rounds: dict[str, list[Figures]] = {}
    wire: dict[str, list[Figures]] = {}
    with local_server() as server, bare_asgi() as bare, http_only() as http:
        us = ours(server, (ECHO, ECHO_32))
        for _ in range(effort.repeats):
            for name, target, model in (
                ("bare ASGI", bare, ECHO),
                ("HTTP only", http, ECHO),
                ("everything, batch 1", us, ECHO),
                ("everything, batch 32", us, ECHO_32),
            ):
                load = Scenario(name, model, CONNECTIONS)
                window = drive(target, load, effort.seconds, effort.warmup_s)
                rounds.setdefault(name, []).append(window)
            for model in (ECHO, ECHO_32):
                wire.setdefault(model.name, []).append(wire_only(server, model.name, effort))
    figures: Figures = {name: combine(runs) for name, runs in rounds.items()}
    for name, runs in wire.items():
        figures[f"wire only, {name}"] = {
            "requests_per_s": statistics.median(run["requests_per_s"] for run in runs),
            "cpu_us_by_role": {
                role: statistics.median(run["cpu_us_by_role"][role] for run in runs)
                for role in ("client", "supervisor", "worker")
            },
        }
    figures["handler only"] = call(LAYERS / "handler_only.py", timeout_s=60)
    figures["network"] = network(effort)
    for name, layer in figures.items():
        say(f"{name}: {layer.get('cpu_us', '')} {layer.get('cpu_us_by_role', layer)}")
    return figures


def network(effort: Effort) -> Figures:
    """The small network at batch 1, in the least server there could be and in ours."""
    windows: dict[str, dict[str, list[Figures]]] = {}
    with local_server() as server, least_server() as least:
        run_round([ours(server, (CNN,)), least], (NETWORK,), effort, windows)
    return {name: combine(runs) for name, runs in windows[NETWORK.name].items()}


def wire_only(server: LocalServer, model: str, effort: Effort) -> Figures:
    arguments = [str(server.home / "runtime"), f"--model={model}", f"--in-flight={CONNECTIONS}"]
    arguments += [f"--duration={effort.seconds}", f"--warmup={effort.warmup_s}"]
    arguments.append(f"--pid={server.pid}")
    return call(LAYERS / "wire_only.py", *arguments, timeout_s=effort.seconds + 60)


@contextlib.contextmanager
def http_only() -> Iterator[Target]:
    """Our frontend with the answers at hand."""
    with script_server(LAYERS / "http_only.py") as (port, pid):
        yield Target(
            "HTTP only",
            lambda model: f"http://127.0.0.1:{port}/predictions/{model}",
            (pid,),
            frozenset({ECHO.name, ECHO_32.name}),
        )


@contextlib.contextmanager
def least_server() -> Iterator[Target]:
    """The small network with as little around it as HTTP and a process of its own need."""
    with script_server(LAYERS / "asgi_model.py") as (port, pid):
        yield Target(
            LEAST,
            lambda model: f"http://127.0.0.1:{port}/{model}",
            (pid,),
            frozenset({CNN.name}),
        )
