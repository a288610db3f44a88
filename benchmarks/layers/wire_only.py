"""Link -> supervisor -> worker -> Link without HTTP: what the wire and the decisions cost.

    python benchmarks/layers/wire_only.py RUNTIME_DIR --model echo --in-flight 64 --pid SERVER

A closed loop like the driver's, on the frontend's own socket of a running
server.  Prints one JSON object; `client` is this process: the Link's share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

sys.path.append(str(Path(__file__).resolve().parent.parent))

import sample
from process_tree import sample_cpu

from stoker.errors import StokerError
from stoker.wire.link import Link
from stoker.wire.payloads import Answer

DEADLINE_S = 60.0


class Loop:
    """`in_flight` jobs at any time, each sent when another was answered."""

    def __init__(self, link: Link, model: str, payload: bytes) -> None:
        self._link = link
        self._model = model
        self._payload = payload
        self.done = 0
        self.failed = 0
        self.is_over = False

    def send(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        pending = self._link.submit(self._model, None, deadline, 0, self._payload)
        pending.on_answer(self._answered)

    def _answered(self, answer: Answer | StokerError) -> None:
        if isinstance(answer, StokerError):
            self.failed += 1
        else:
            self.done += 1
        if not self.is_over:
            self.send()


async def run(options: argparse.Namespace) -> dict[str, object]:
    link = Link(options.runtime_dir)
    await link.start()
    await link.wait_connected(10)
    loop = Loop(link, options.model, sample.payload())
    for _ in range(options.in_flight):
        loop.send()
    await asyncio.sleep(options.warmup)
    before, own, done = sample_cpu(options.pid), time.process_time(), loop.done
    started = time.perf_counter()
    await asyncio.sleep(options.duration)
    seconds = time.perf_counter() - started
    used = sample_cpu(options.pid).since(before)
    own_s, jobs = time.process_time() - own, loop.done - done
    failed = loop.failed
    loop.is_over = True
    await link.close()  # which ends what is still in flight
    if not jobs:
        raise SystemExit(f"no job was answered; {failed} failed")
    by_role = {role: cpu_s / jobs * 1e6 for role, cpu_s in used.by_role.items()}
    return {
        "requests_per_s": jobs / seconds,
        "failed": failed,
        "cpu_us_by_role": by_role | {"client": own_s / jobs * 1e6},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runtime_dir", type=Path)
    parser.add_argument("--model", default="echo")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--duration", type=float, default=3.0)
    parser.add_argument("--warmup", type=float, default=0.5)
    parser.add_argument("--pid", type=int, action="append", default=[])
    json.dump(uvloop.run(run(parser.parse_args())), sys.stdout)
    print()
