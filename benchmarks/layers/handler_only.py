"""The worker's part without a process around it: payload to handler to answer rows.

    python benchmarks/layers/handler_only.py

Prints microseconds per job: of the handler alone, and of our contract with it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, cast

sys.path.append(str(Path(__file__).resolve().parent.parent / "models"))

import sample
from echo_handler import echo

from stoker.wire.frames import WorkJob
from stoker.worker.answers import group_rows
from stoker.worker.context import Context
from stoker.worker.contracts.torchserve import TorchServeContract
from stoker.worker.in_hand import BatchInHand

ROUNDS = 20000


def jobs_of(count: int) -> list[WorkJob]:
    payload = sample.payload()
    return [WorkJob(number.to_bytes(16, "big"), payload) for number in range(1, count + 1)]


def timed_us(work: Any, rounds: int, per_round: int) -> float:
    work()
    started = time.process_time()
    for _ in range(rounds):
        work()
    return (time.process_time() - started) / (rounds * per_round) * 1e6


def main() -> None:
    figures = {}
    for batch_size in (1, 32):
        contract = make_contract()
        jobs = jobs_of(batch_size)
        rows: list[dict[str, Any]] = [{"body": b"x" * 100} for _ in range(batch_size)]
        rounds = ROUNDS // batch_size
        figures[str(batch_size)] = {
            "handler_us": timed_us(lambda rows=rows: echo(rows, None), rounds, batch_size),
            "contract_us": timed_us(
                lambda contract=contract, jobs=jobs: group_rows(contract.answer(jobs)),
                rounds,
                batch_size,
            ),
        }
    json.dump(figures, sys.stdout)
    print()


def make_contract() -> TorchServeContract:
    context = Context("echo", "/", {}, 1, None, "1")
    # Its channel is for streams and cancellations, of which there are none.
    in_hand = BatchInHand(cast(Any, None), response_timeout_s=120)
    return TorchServeContract(
        echo, context, in_hand, decode_request=True, max_response_bytes=1 << 20
    )


if __name__ == "__main__":
    main()
