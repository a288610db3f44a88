"""A soak: mixed load over five models while processes are killed, stopped and aborted.

    python tests/soak/run.py [--seconds 600] [--every 2] [--seed N] [--clients 16]

Ends with a table and exit code 0 if nothing was lost and nobody got an answer
that was not theirs.  A run is repeated by its seed as far as a machine's timing
allows: the faults and their order are the same.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import random
import sys
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import psutil
from clients import Client, Fate, Question, Tally, echo, large, risky, stream
from facts import wait_until
from faults import Faults
from live_server import Server

DEADLINE_S = 25.0
RESPONSE_TIMEOUT_S = 3
#: Growth of all processes together that counts as a leak; a frontend that was
#: killed and made anew differs by a few megabytes from the first one.
KEPT_BYTES = 64 << 20
KEPT_DESCRIPTORS = 40
_PR_SET_CHILD_SUBREAPER = 36

MODELS = {
    "echo": ("echo:handle", {"initial_workers": 2}),
    "batches": ("naps:handle", {"batch_size": 8, "max_batch_delay": 5}),
    "large": ("echo:handle", {"initial_workers": 1}),
    "streams": ("streams:handle", {"initial_workers": 1}),
    "risky": ("fates:handle", {"batch_size": 4, "max_batch_delay": 2, "initial_workers": 2}),
}
QUESTIONS = [
    ("echo", echo),
    ("echo", echo),
    ("batches", echo),
    ("batches", echo),
    ("large", large),
    ("streams", stream),
    ("risky", risky),
]


class Soak:
    """One run."""

    def __init__(self, seconds: float, every_s: float, seed: int, clients: int) -> None:
        self._seconds, self._every_s, self._seed = seconds, every_s, seed
        self._clients = clients
        self._tally = Tally()
        # Workers die by design all the time: back-off would be all that is measured.
        self._server = Server("--request-deadline-s", str(DEADLINE_S), "--job-queue-size", "200")
        self._faults = Faults(self._server, random.Random(seed))

    def run(self) -> int:
        server = self._server
        try:
            server.wait_started()
            for model, (handler, query) in MODELS.items():
                workers = int(query.get("initial_workers", 1))
                more = {k: v for k, v in query.items() if k != "initial_workers"}
                server.register(
                    model, handler, workers, response_timeout=RESPONSE_TIMEOUT_S, **more
                )
            before = self._weigh(warm_s=3.0)
            self._storm()
            self._wait_recovered()
            after = self._weigh(warm_s=3.0)
            # Whatever they complained about, they were made to.
            server.process.terminate()
            code = server.process.wait(30)
            return self._report(before, after, code)
        finally:
            server.destroy()

    def _load(self) -> list[Client]:
        clients = [
            Client(
                number,
                self._seed,
                lambda: self._server.addresses["inference"],
                QUESTIONS,
                DEADLINE_S,
                self._faults.was_cut,
                self._tally,
            )
            for number in range(self._clients)
        ]
        for client in clients:
            client.start()
        return clients

    def _storm(self) -> None:
        clients = self._load()
        self._tally.answered_at = time.monotonic()
        ends_at = time.monotonic() + self._seconds
        pause = threading.Event()
        while time.monotonic() < ends_at:
            pause.wait(self._every_s)
            struck = self._faults.strike()
            print(f"{ends_at - time.monotonic():6.1f} s left  {struck}", flush=True)
        _send_home(clients)

    def _wait_recovered(self) -> None:
        chance = random.Random(0)
        for model, ask in dict(QUESTIONS).items():
            question = ask(model, chance)
            wait_until(
                lambda question=question: self._is_answered(question),
                lambda model=model: f"{model} answers again: {self._server.describe(model)}",
                60,
            )

    def _is_answered(self, question: Question) -> bool:
        answer = self._server.predict(
            question.model, question.body, content_type=question.content_type
        )
        return answer.status == 200 and question.is_answer(answer.body)

    def _weigh(self, warm_s: float) -> tuple[int, int]:
        """PSS and descriptors of all processes after a while of load without faults."""
        clients = self._load()
        threading.Event().wait(warm_s)
        _send_home(clients)
        gc.collect()
        found = [psutil.Process(self._server.process.pid), *self._server.tree()]
        wait_until(lambda: _settled(self._server), "all workers are there again", 60)
        pss = descriptors = 0
        for process in found:
            try:
                pss += process.memory_full_info().pss
                descriptors += process.num_fds()
            except psutil.NoSuchProcess:
                pass
        return pss, descriptors

    def _report(self, before: tuple[int, int], after: tuple[int, int], code: int) -> int:
        tally, done = self._tally, self._faults.done
        fates = tally.fates
        deaths = {name.split()[0]: 0 for name in done}
        for name, count in done.items():
            deaths[name.split()[0]] += count
        rows: list[tuple[str, object]] = [
            ("requests", sum(fates.values())),
            *((fate.value, fates[fate]) for fate in Fate),
            *sorted(done.items()),
            ("max pause", f"{tally.max_pause[0]:.2f} s"),
            ("memory before / after", f"{before[0] >> 20} / {after[0] >> 20} MiB"),
            ("descriptors before / after", f"{before[1]} / {after[1]}"),
            ("exit code of the server", code),
        ]
        print(f"\nsoak of {self._seconds:.0f} s, seed {self._seed}, {self._clients} clients")
        for name, value in rows:
            print(f"  {name:28} {value}")
        for kind, count in tally.errors.most_common():
            print(f"    {count:6} x {kind}")
        failed = [
            *tally.complaints,
            *(["memory kept"] if after[0] - before[0] > KEPT_BYTES else []),
            *(["descriptors kept"] if after[1] - before[1] > KEPT_DESCRIPTORS else []),
            *([f"exit code {code}"] if code else []),
        ]
        for complaint in failed:
            print("FAILED:", complaint)
        return 1 if failed else 0


def _send_home(clients: list[Client]) -> None:
    for client in clients:
        client.leave()
    for client in clients:
        client.join(60)
        assert not client.is_alive(), f"{client.name} never got an answer"


def _settled(server: Server) -> bool:
    return all(worker["status"] == "READY" for model in MODELS for worker in server.workers(model))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--every", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    sys.exit(Soak(options.seconds, options.every, options.seed, options.clients).run())
