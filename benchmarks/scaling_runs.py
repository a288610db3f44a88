"""The autoscaler on real processes: what `docs/autoscaling.md` shows, and the recorded load.

    python benchmarks/scaling_runs.py play      plays a step and a spike; writes scaling.json
    python benchmarks/scaling_runs.py record    records a load; writes recorded_load.json

`record` lets a population of users ask a real server: each asks, reads the
answer for a second on average, and asks again.  Their number changes as it
does at an office over a day, an hour to half a minute.  What is kept is how
many requests the server got in each second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

from shaped_load import Driver, Second, as_rows, parse_rates

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "examples"))

from local_server import Client, LocalServer  # noqa: E402

FIGURES = HERE / "scaling.json"
RECORDED = HERE.parent / "tests" / "simulation" / "recorded_load.json"
HANDLER = "nap_handler:Nap"
#: How often the number of workers is looked at.
LOOK_S = 0.25
LOADS = {"step": "2*15,20*45,2*45,0*25", "spike": "2*20,40*8,2*52,0*25"}
FLAGS = ("--job-queue-size=2048", "--max-idle-s=20", "--log-level=warning")
MAX_WORKERS = 8

#: Users at work, for so many seconds.
DAY = (
    (1, 20), (3, 20), (8, 15), (16, 20), (22, 30), (19, 15), (24, 15), (9, 20), (6, 10),
    (15, 15), (23, 30), (26, 20), (20, 15), (12, 15), (5, 20), (2, 20),
)  # fmt: skip
READ_S = 1.0


class Looks:
    """What describe says, look by look, until it is closed."""

    def __init__(self, server: LocalServer, model: str) -> None:
        self.rows: list[dict[str, Any]] = []
        self._server, self._model = server, model
        self._is_over = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        with Client(self._server.management) as client:
            while not self._is_over.wait(LOOK_S):
                shown = client.ask("GET", f"/models/{self._model}").json()[0]
                self.rows.append(
                    {
                        "at_s": round(time.monotonic() - self._started, 2),
                        "ready": sum(w["status"] == "READY" for w in shown["workers"]),
                        "wanted": shown["scaling"]["wantedWorkers"],
                        "queued": shown["jobQueueStatus"]["pendingRequests"],
                    }
                )


def serve(server: LocalServer) -> str:
    """A model between one worker and MAX_WORKERS."""
    server.register(model_name="nap", handler=HANDLER, initial_workers=1, synchronous="true")
    with Client(server.management) as client:
        client.ask("PUT", "/models/nap", min_worker=1, max_worker=MAX_WORKERS)
    return f"{server.inference}/predictions/nap"


def play() -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, rates in LOADS.items():
        with LocalServer(*FLAGS, python_path=(HERE / "models",)) as server:
            url = serve(server)
            looks = Looks(server, "nap")
            seconds: list[Second] = asyncio.run(Driver(url).run(parse_rates(rates), seed=1))
            looks.close()
        figures[name] = {"seconds": as_rows(seconds), "looks": looks.rows}
    return figures


async def _user(driver: Driver, until: float, asked: list[float], rng: random.Random) -> None:
    while time.monotonic() < until:
        await asyncio.sleep(rng.expovariate(1 / READ_S))
        asked.append(time.monotonic())
        await driver.ask_once()


async def _people(url: str) -> list[int]:
    rng, driver = random.Random(1), Driver(url)
    asked: list[float] = []
    started = time.monotonic()
    for users, seconds in DAY:
        until = time.monotonic() + seconds
        await asyncio.gather(*(_user(driver, until, asked, rng) for _ in range(users)))
    counts = [0] * (int(max(asked) - started) + 1)
    for at in asked:
        counts[int(at - started)] += 1
    return counts


def record() -> dict[str, Any]:
    with LocalServer(*FLAGS, python_path=(HERE / "models",)) as server:
        counts = asyncio.run(_people(serve(server)))
    return {
        "what": "Requests in each second that a stoker got from users in a closed loop; "
        "recorded by benchmarks/scaling_runs.py.",
        "requests_per_s": counts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Play loads on a server that scales itself.")
    parser.add_argument("what", choices=("play", "record"))
    if parser.parse_args().what == "play":
        FIGURES.write_text(json.dumps(play()) + "\n")
    else:
        RECORDED.write_text(json.dumps(record()) + "\n")


if __name__ == "__main__":
    main()
