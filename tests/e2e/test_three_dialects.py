"""Three listeners of three dialects over one registry, and many clients that change it at once.

Each client has models of its own, which it registers through one dialect and
scales, describes, asks and unregisters through any; so each knows what must be
answered, whatever the others do.  At the end all three views agree, and with
what the clients believe.

`STOKER_DIALECTS_S` seconds: CI runs a few, `make dialects` two minutes.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("STOKER_DIALECTS_S", "8"))
MODELS = int(os.environ.get("STOKER_DIALECTS_MODELS", "50"))
CLIENTS = 16
SEED = int(os.environ.get("STOKER_DIALECTS_SEED", "6"))
VERBS = ("register", "scale", "describe", "list", "predict", "unregister")
DIALECTS = ("torchserve", "mms", "djl")
#: Of the models, so many have a worker: what is tested is the registry.
WITH_WORKERS = 0.2


@pytest.fixture(scope="module")
def server_flags():
    listeners = ", ".join(f"http://127.0.0.1:0 {dialect}" for dialect in DIALECTS)
    return ("--listeners", listeners)


class Client:
    """One client with its share of the models; `problems` is what it was answered wrongly."""

    def __init__(self, server: Any, number: int, names: list[str]) -> None:
        self.random = random.Random(SEED * 1000 + number)
        self.server = server
        #: Registered models of its own, with how many workers each was told to have.
        self.known: dict[str, int] = {}
        self.names = names
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()

    def run(self, until: float) -> None:
        while time.monotonic() < until and not self.problems:
            name = self.random.choice(self.names)
            if name not in self.known:
                self.register(name)
            else:
                verbs = (self.scale, self.describe, self.list, self.predict, self.unregister)
                self.random.choices(verbs, (3, 4, 2, 3, 1))[0](name)

    def ask(
        self, what: str, method: str, path: str, *accepted: int, api: str = "management"
    ) -> Any:
        dialect = self.random.choice(DIALECTS)
        body = b"x" if api == "inference" else None
        answer = self.server.ask(f"{dialect}/{api}", method, path, body)
        self.counts[what] += 1
        if answer.status not in accepted:
            said = f"{answer.status} {answer.body[:300]!r}"
            self.problems.append(f"{dialect} {method} {path}: {said}")
        return answer, dialect

    def register(self, name: str) -> None:
        workers = int(self.random.random() < WITH_WORKERS)
        query = f"model_name={name}&handler=noop:handle&synchronous=true"
        if self.random.random() < 0.5:
            query += "&url=noop.mar"
        else:
            query += "&url=noop-v1.0"
        least = f"&initial_workers={workers}"
        bounds = f"&min_worker={workers}&max_worker={workers}"
        self.ask("register", "POST", f"/models?{query}{least}{bounds}", 200, 201, 202)
        self.known[name] = workers

    def scale(self, name: str) -> None:
        workers = int(self.random.random() < WITH_WORKERS)
        query = f"min_worker={workers}&max_worker={workers}"
        self.ask("scale", "PUT", f"/models/{name}?{query}", 200, 202)
        self.known[name] = workers

    def describe(self, name: str) -> None:
        answer, dialect = self.ask("describe", "GET", f"/models/{name}", 200)
        if answer.status == 200 and name not in answer.text:
            self.problems.append(f"{dialect} describes another model: {answer.text[:200]}")

    def list(self, name: str) -> None:
        self.ask("list", "GET", "/models?limit=100", 200)

    def predict(self, name: str) -> None:
        """Of a model that is to have a worker: it may be on its way, and the request waits."""
        if self.known[name]:
            self.ask("predict", "POST", f"/predictions/{name}", 200, api="inference")

    def unregister(self, name: str) -> None:
        self.ask("unregister", "DELETE", f"/models/{name}", 200)
        del self.known[name]


def listed(server: Any, dialect: str) -> set[str]:
    """Every page of it."""
    names: set[str] = set()
    token = "0"
    while True:
        page = server.ask(
            f"{dialect}/management", "GET", f"/models?limit=20&next_page_token={token}"
        ).json
        names |= {model["modelName"] for model in page["models"]}
        if "nextPageToken" not in page or not page["models"]:
            return names
        token = page["nextPageToken"]


def described(server: Any, dialect: str, name: str) -> dict[str, Any]:
    document = server.ask(f"{dialect}/management", "GET", f"/models/{name}").json
    found: dict[str, Any] = document[0] if isinstance(document, list) else document
    return found


@pytest.mark.timeout(SECONDS + 240)
def test_three_dialects_agree_whatever_their_clients_do(server):
    """
    Issue 6: 50 models, mixed management calls from 16 clients, no 5xx, one truth.
    """
    names = [f"m{i:02}" for i in range(MODELS)]
    clients = [Client(server, i, names[i::CLIENTS]) for i in range(CLIENTS)]
    until = time.monotonic() + SECONDS
    threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    problems = [problem for client in clients for problem in client.problems]
    assert problems == []
    counts: Counter[str] = Counter()
    for client in clients:
        counts += client.counts
    # Every verb was used, or this says nothing.
    assert min(counts[verb] for verb in VERBS) > 0
    known = {name: n for client in clients for name, n in client.known.items()}
    views = {dialect: listed(server, dialect) for dialect in DIALECTS}
    assert views == {dialect: {*known} for dialect in DIALECTS}
    for name, workers in known.items():
        records = [described(server, dialect, name) for dialect in DIALECTS]
        assert {record["modelName"] for record in records} == {name}
        assert {record["modelUrl"] for record in records} == {records[0]["modelUrl"]}
        assert {record["batchSize"] for record in records} == {1}
        least = {record["minWorkers"] for record in records if "minWorkers" in record}
        assert least == {workers}
    print(f"\n{sum(counts.values())} calls in {SECONDS:g} s: {dict(counts)}")
