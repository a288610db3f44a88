"""The models as BentoML serves them; runs in BentoML's own environment."""

import time

import bentoml


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Models:
    @bentoml.api(route="/echo")
    def echo(self, text: str) -> str:
        return text

    @bentoml.api(route="/echo32", batchable=True, max_batch_size=32, max_latency_ms=1000)
    def echo32(self, text: list[str]) -> list[str]:
        return text

    @bentoml.api(route="/size")
    def size(self, text: str) -> str:
        return str(len(text))

    @bentoml.api(route="/slow")
    def slow(self, text: str) -> str:
        time.sleep(0.005)
        return text
