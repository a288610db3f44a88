"""An open-loop HTTP/1.1 load driver: so many requests in each second, whatever the answers do.

What clients of a service are like: they do not wait for each other.  Within a
second requests come at random, from a seed.  Prints one JSON object:

    {"seconds": [{"asked": 7, "latencies_s": [0.02, ...], "statuses": {"200": 7}}, ...]}

where every request counts for the second in which it was asked.

    python benchmarks/shaped_load.py http://127.0.0.1:8080/predictions/m --rates 2*10,20*30,2*60
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

#: An answer that takes longer counts as none ("timeout").
PATIENCE_S = 60.0
#: Connections at once; who finds none free waits for one, and that counts as latency.
MAX_CONNECTIONS = 256


@dataclass(slots=True)
class Second:
    """What was asked in one second, and what came of it."""

    asked: int = 0
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


class Driver:
    """Asks one address."""

    def __init__(self, url: str, body: bytes = b"x") -> None:
        where = urlsplit(url)
        self._host, self._port = where.hostname or "127.0.0.1", where.port or 80
        head = f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\n"
        kind = "Content-Type: application/octet-stream"
        self._request = f"{head}{kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)

    async def run(self, rates: Sequence[float], seed: int) -> list[Second]:
        """Ask `rates[n]` requests in second n, on average; returns when all have ended."""
        rng = random.Random(seed)
        seconds = [Second() for _ in rates]
        tasks: set[asyncio.Task[None]] = set()
        started = time.monotonic()
        at = 0.0
        for number, rate in enumerate(rates):
            at = max(at, float(number))
            while rate > 0:
                at += rng.expovariate(rate)
                if at >= number + 1:
                    break
                await asyncio.sleep(max(0.0, started + at - time.monotonic()))
                task = asyncio.ensure_future(self._ask(seconds[number], started + at))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        await asyncio.sleep(max(0.0, started + len(rates) - time.monotonic()))
        await asyncio.gather(*tasks)
        for _, writer in self._free:
            writer.close()
        return seconds

    async def _ask(self, second: Second, meant_at: float) -> None:
        """Latency counts from when it was meant to be asked: no delay of ours is hidden."""
        second.asked += 1
        second.statuses[await self.ask_once()] += 1
        second.latencies_s.append(round(time.monotonic() - meant_at, 4))

    async def ask_once(self) -> str:
        """One request; its status, or what became of it instead."""
        try:
            return await asyncio.wait_for(self._exchange(), PATIENCE_S)
        except TimeoutError:
            return "timeout"
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            return type(error).__name__

    async def _exchange(self) -> str:
        async with self._places:
            reader, writer = (
                self._free.pop()
                if self._free
                else await asyncio.open_connection(self._host, self._port)
            )
            try:
                writer.write(self._request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                await reader.readexactly(int(headers.get("content-length", 0)))
            except BaseException:
                writer.close()
                raise
            if headers.get("connection") == "close":
                writer.close()
            else:
                self._free.append((reader, writer))
            return head[0].split(" ", 2)[1]


def parse_rates(text: str) -> list[float]:
    """`2*10,20*30`: two a second for ten seconds, then twenty a second for thirty."""
    rates: list[float] = []
    for part in text.split(","):
        rate, _, count = part.partition("*")
        rates += [float(rate)] * int(count or 1)
    return rates


def as_rows(seconds: Sequence[Second]) -> list[dict[str, Any]]:
    return [
        {"asked": each.asked, "latencies_s": each.latencies_s, "statuses": dict(each.statuses)}
        for each in seconds
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask so many requests in each second.")
    parser.add_argument("url")
    parser.add_argument("--rates", type=parse_rates, required=True, help="such as 2*10,20*30")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()

    async def run() -> list[Second]:
        return await Driver(chosen.url).run(chosen.rates, chosen.seed)

    print(json.dumps({"seconds": as_rows(asyncio.run(run()))}))


if __name__ == "__main__":
    main()
