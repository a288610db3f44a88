"""The models as mosec serves them; runs in mosec's own environment."""

from __future__ import annotations

import os
import time
from typing import Any

from mosec import Runtime, Server, Worker


class Raw(Worker):
    """Bytes in, bytes out; batches of one come without a list."""

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data

    def one(self, body: bytes) -> bytes:
        return body

    def forward(self, data: Any) -> Any:
        if isinstance(data, list):
            return [self.one(body) for body in data]
        return self.one(data)


class Echo(Raw):
    pass


class Size(Raw):
    def one(self, body: bytes) -> bytes:
        return str(len(body)).encode()


class Slow(Raw):
    def one(self, body: bytes) -> bytes:
        time.sleep(0.005)
        return body


class Cnn(Raw):
    def __init__(self) -> None:
        super().__init__()
        from cnn import Classifier

        self._classify = Classifier()

    def forward(self, data: Any) -> Any:
        bodies = data if isinstance(data, list) else [data]
        answers = [answer.encode() for answer in self._classify(bodies)]
        return answers if isinstance(data, list) else answers[0]


KINDS = {"echo": Echo, "echo32": Echo, "size": Size, "slow": Slow, "cnn": Cnn, "cnn8": Cnn}

if __name__ == "__main__":
    server = Server()
    routes = {}
    for flag in os.environ["BENCH_MODELS"].split():
        name, batch_size, delay_ms = flag.split(",")
        runtime = Runtime(
            KINDS[name], 1, max_batch_size=int(batch_size), max_wait_time=int(delay_ms), timeout=60
        )
        routes[f"/{name}"] = [runtime]
    server.register_runtime(routes)
    server.run()
