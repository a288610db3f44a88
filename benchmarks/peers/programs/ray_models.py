"""The models as Ray Serve serves them; runs in Ray's own environment."""

from __future__ import annotations

import argparse
import signal
import time
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

QUIET = serve.schema.LoggingConfig(enable_access_log=False, log_level="ERROR")


def answer(kind: str, bodies: list[bytes], classify: Any) -> list[bytes]:
    if kind.startswith("cnn"):
        return [text.encode() for text in classify(bodies)]
    if kind == "size":
        return [str(len(body)).encode() for body in bodies]
    if kind == "slow":
        time.sleep(0.005 * len(bodies))
    return bodies


def classifier(kind: str) -> Any:
    if not kind.startswith("cnn"):
        return None
    from cnn import Classifier

    return Classifier()


@serve.deployment(max_ongoing_requests=2048, logging_config=QUIET)
class Single:
    def __init__(self, kind: str) -> None:
        self._kind, self._classify = kind, classifier(kind)

    async def __call__(self, request: Request) -> Response:
        return Response(answer(self._kind, [await request.body()], self._classify)[0])


@serve.deployment(max_ongoing_requests=2048, logging_config=QUIET)
class Batched:
    def __init__(self, kind: str, batch_size: int, delay_s: float) -> None:
        self._kind, self._classify = kind, classifier(kind)
        self._batch.set_max_batch_size(batch_size)
        self._batch.set_batch_wait_timeout_s(delay_s)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def _batch(self, bodies: list[bytes]) -> list[bytes]:
        return answer(self._kind, bodies, self._classify)

    async def __call__(self, request: Request) -> Response:
        return Response(await self._batch(await request.body()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("models", nargs="+")
    options = parser.parse_args()
    ray.init(include_dashboard=False, num_cpus=16, log_to_driver=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": options.port}, logging_config=QUIET)
    for flag in options.models:
        name, batch_size, delay_ms = flag.split(",")
        if int(batch_size) == 1:
            app = Single.options(name=name, ray_actor_options={"num_cpus": 0.1}).bind(name)
        else:
            app = Batched.options(name=name, ray_actor_options={"num_cpus": 0.1}).bind(
                name, int(batch_size), int(delay_ms) / 1000
            )
        serve.run(app, name=name, route_prefix=f"/{name}")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
