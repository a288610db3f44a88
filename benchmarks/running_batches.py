"""Continuous against static batching: examples/storyteller both ways, in turn.

    python benchmarks/running_batches.py [--rounds 5] [--clients 16] [--seconds 10]

Both models are the same archive but for `continuousBatching`, and live in one
server; only one is asked at a time.  Clients ask again as soon as they are
answered.  Lengths are the same for both, from a seed.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

CHECKOUT = Path(__file__).resolve().parents[1]
STORYTELLER = CHECKOUT / "examples" / "storyteller"
sys.path[:0] = [str(CHECKOUT / "examples")]

from local_server import LocalServer  # noqa: E402

BATCH_SIZE = 8
#: Untimed seconds at the beginning of a round.
WARM_UP_S = 1.0


class Round(NamedTuple):
    """What one round of one model measured.

    Attributes:
        characters_per_s: Of all clients, also of texts that were not complete at the end.
        first_s: From the request to its first character.
        whole_s: From the request to its last.
    """

    characters_per_s: float
    first_s: list[float]
    whole_s: list[float]


def lengths(seed: int) -> Any:
    """Most texts are short and some are long, as answers are."""
    numbers = random.Random(seed)
    while True:
        yield min(400, 5 + int(numbers.expovariate(1 / 60)))


def ask(address: str, model: str, length: int, until: float) -> tuple[list[float], float]:
    """When each piece came, and when it was asked for; gives up at `until`."""
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    body = json.dumps({"prompt": "The server ", "length": length})
    began = time.monotonic()
    came: list[float] = []
    try:
        connection.request(
            "POST", f"/predictions/{model}", body, {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {response.read()!r}")
        while response.read(1):
            came.append(time.monotonic())
            if came[-1] > until:
                break
    finally:
        connection.close()
    return came, began


def play(server: LocalServer, model: str, clients: int, seconds: float, seed: int) -> Round:
    """One round: every client with lengths of its own."""
    start = time.monotonic() + WARM_UP_S
    until = start + seconds
    asked: list[tuple[list[float], float, int]] = []
    faults: list[Exception] = []

    def client(number: int) -> None:
        source = lengths(seed * 1000 + number)
        try:
            while time.monotonic() < until:
                length = next(source)
                came, began = ask(server.inference, model, length, until)
                asked.append((came, began, length))
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    timed = [(came, began, length) for came, began, length in asked if began >= start]
    written = sum(start <= at <= until for came, _, _ in asked for at in came)
    return Round(
        written / seconds,
        [came[0] - began for came, began, _ in timed if came],
        [came[-1] - began for came, began, length in timed if len(came) == length],
    )


def quantile(values: Sequence[float], share: float) -> float:
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def row(name: str, rounds: Sequence[Round]) -> str:
    """Medians over rounds, as a row of a table."""
    cells = [f"{statistics.median(each.characters_per_s for each in rounds):.0f}"]
    for times in ([each.first_s for each in rounds], [each.whole_s for each in rounds]):
        for share in (0.5, 0.95):
            middle_s = statistics.median(quantile(values, share) for values in times)
            cells.append(f"{1000 * middle_s:.0f}")
    return f"| {name} | " + " | ".join(cells) + " |"


def pack_both(folder: Path, units: int) -> None:
    """The archive with and without `continuousBatching`."""
    spec = importlib.util.spec_from_file_location("pack_storyteller", STORYTELLER / "pack.py")
    assert spec is not None
    assert spec.loader is not None
    pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    weights = folder / "weights.npz"
    learn = [sys.executable, str(STORYTELLER / "train.py"), str(weights), "--units", str(units)]
    subprocess.run(learn, check=True)
    for name, is_continuous in (("continuous", "true"), ("static", "false")):
        config = folder / "model-config.yaml"
        config.write_text(
            f"minWorkers: 1\nmaxWorkers: 1\nbatchSize: {BATCH_SIZE}\nmaxBatchDelay: 5\n"
            f"continuousBatching: {is_continuous}\n"
        )
        pack.make(folder / "store", config, name, weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--units", type=int, default=1024)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pack_both(Path(folder), arguments.units)
        found: dict[str, list[Round]] = {"static": [], "continuous": []}
        with LocalServer(model_store=Path(folder, "store")) as server:
            for name in found:
                server.register(url=f"{name}.mar")
            for number in range(arguments.rounds):
                # Each first as often as the other.
                for name in list(found)[:: 1 if number % 2 else -1]:
                    measured = play(server, name, arguments.clients, arguments.seconds, number + 1)
                    found[name].append(measured)
                    print(row(f"{name} {number + 1}", [measured]), flush=True)
    print(
        "\n| | characters/s | first p50 ms | p95 | whole p50 ms | p95 |\n|---|---|---|---|---|---|"
    )
    for name, rounds in found.items():
        print(row(name, rounds))
    ratios = [
        new.characters_per_s / old.characters_per_s
        for new, old in zip(found["continuous"], found["static"], strict=True)
    ]
    print(f"\ncharacters/s, continuous over static, per round: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
