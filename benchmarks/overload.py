"""More than can be answered: 256 clients that ask again at once when refused.

Every server has the queue bound it comes with, so this shows what it does
with the requests it cannot answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from measuring import Effort, Figures, combine, drive, say
from peers.environments import Environment
from peers.peer import Peer
from peers.running import PeerFailed, RunningPeer
from scenarios import OVERLOAD, SLOW
from targets import OURS, Target, local_server, of_peer, ours


def measure(peers: Sequence[Peer], environments: dict[str, Environment], effort: Effort) -> Figures:
    results: Figures = {}
    with local_server("--job-queue-size=100") as server:
        results[OURS] = _load(ours(server, (SLOW,)), effort)
    for peer in peers:
        if peer.name not in environments or SLOW not in peer.models:
            continue
        try:
            with RunningPeer(peer, environments[peer.name], (SLOW,), queue_size=0) as running:
                results[peer.name] = _load(of_peer(running), effort)
        except (PeerFailed, RuntimeError) as error:
            results[peer.name] = {"failed": str(error)}
            say(f"{peer.name}: {error}")
    return results


def _load(target: Target, effort: Effort) -> Figures:
    drive(target, OVERLOAD, 1.0, 0.0)
    runs = [
        drive(target, OVERLOAD, effort.seconds * 1.5, effort.warmup_s)
        for _ in range(effort.repeats)
    ]
    figures = combine(runs)
    refused_per_s = sum(figures["failures"].values()) / (effort.seconds * 1.5 * effort.repeats)
    figures["refused_per_s"] = refused_per_s
    say(
        f"{target.name}: {figures['requests_per_s']:.0f} good answers/s, p99"
        f" {figures['p99_ms']:.0f} ms; {refused_per_s:.0f} refusals/s, p99"
        f" {figures.get('refusal_p99_ms', 0):.1f} ms; {figures['failures']}"
    )
    return figures
