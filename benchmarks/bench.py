"""Everything: ours and every peer that can be installed, then the page in docs/.

    python benchmarks/bench.py [--part NAME ...] [--peer NAME ...] [--short]

Prints while it goes, keeps figures in benchmarks/results.json and writes
docs/performance.md with its plots.  How to read them: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import compileall
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import crowds
import growth
import limits
import lives
import overload
import report
import results
import steady
from measuring import FULL, SHORT, Effort, Figures, leave_in_order, say
from peers.environments import Environment, default_folder
from peers.java_archives import JavaPeer
from peers.known import PEERS
from peers.peer import Peer
from peers.running import PeerFailed
from targets import ServerError

HERE = Path(__file__).resolve().parent


class Run:
    """One run: which peers, how long, and the parts it is made of."""

    def __init__(
        self, peers: tuple[Peer, ...], environments: dict[str, Environment], effort: Effort
    ) -> None:
        self._peers = peers
        self._environments = environments
        self._effort = effort

    def parts(self) -> dict[str, Callable[[], Figures]]:
        return {
            "steady": lambda: steady.measure(self._peers, self._environments, self._effort),
            "overload": lambda: overload.measure(self._peers, self._environments, self._effort),
            "lives": self._lives,
            "crowds": self._crowds,
            "growth": lambda: growth.measure(self._shorter()),
            "limits": lambda: limits.measure(self._effort),
        }

    def _shorter(self) -> Effort:
        """For curves: many points, each one window."""
        return Effort(self._effort.seconds / 1.5, self._effort.warmup_s / 1.5, 1)

    def _lives(self) -> Figures:
        return {
            "stoker": lives.of_ours(self._effort.repeats),
            **lives.of_peers(self._peers, self._environments),
        }

    def _crowds(self) -> Figures:
        figures: Figures = {
            "registered": crowds.registered(self._effort),
            "with_workers": {"stoker": crowds.with_workers()},
        }
        for peer in self._peers:
            if isinstance(peer, JavaPeer) and peer.name in self._environments:
                try:
                    found = crowds.of_java_peer(peer, self._environments[peer.name])
                except (PeerFailed, RuntimeError) as error:
                    found = {"failed": str(error)[:200]}
                figures["with_workers"][peer.name] = found
        return figures


def parse() -> argparse.Namespace:
    known = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", default=[], help="only these parts")
    parser.add_argument(
        "--peer", action="append", default=[], help=f"only these of {', '.join(known)}; or `none`"
    )
    parser.add_argument("--peers-dir", type=Path, default=default_folder())
    parser.add_argument("--short", action="store_true", help="rough, to try the benchmarks")
    parser.add_argument("--seconds", type=float, help="length of one window")
    parser.add_argument("--repeats", type=int, help="windows for one figure; the median counts")
    parser.add_argument("--results", type=Path, default=results.FILE)
    parser.add_argument("--no-page", action="store_true", help="leave docs/ alone")
    options = parser.parse_args()
    for name in options.peer:
        if name not in [*known, "none"]:
            parser.error(f"no such peer: {name}")
    return options


def compile_ours() -> None:
    """As pip leaves what it installs: else each start of ours compiles all of it again."""
    for room in HERE.parent.iterdir():
        if (room / "__init__.py").exists():
            compileall.compile_dir(room, quiet=1)


def main() -> int:
    options = parse()
    compile_ours()
    peers = tuple(peer for peer in PEERS if not options.peer or peer.name in options.peer)
    environments, missing = steady.install(peers, options.peers_dir)
    versions = {name: found.versions for name, found in environments.items()}
    settings = {peer.name: peer.settings for peer in peers}
    installed = {"versions": versions, "missing": missing, "settings": settings}
    results.store("peers", installed, options.results)
    base = SHORT if options.short else FULL
    effort = Effort(options.seconds or base.seconds, base.warmup_s, options.repeats or base.repeats)
    run = Run(peers, environments, effort)
    for name, part in run.parts().items():
        if not options.part or name in options.part:
            say(f"\n== {name}")
            results.store(name, part(), options.results)
    if not options.no_page:
        report.write(results.load(options.results))
        draw(options.results)
    return 0


def draw(path: Path) -> None:
    """Plots need matplotlib, which nothing else here does."""
    script = [sys.executable, str(HERE / "plots.py"), str(path)]
    if subprocess.run(script, check=False).returncode:
        say("no plots; `make bench` installs what they need")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    leave_in_order()
    try:
        sys.exit(main())
    except ServerError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
