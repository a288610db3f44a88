"""PyTriton: Python handlers behind Triton's C++ core."""

from __future__ import annotations

import json

from scenarios import Model

from peers.peer import WITHOUT_CNN, Body, Peer, Place, model_flags, program


class PyTriton(Peer):
    name = "PyTriton"
    requirements = ("nvidia-pytriton",)
    models = WITHOUT_CNN
    settings = "Open Inference JSON with one string"

    def command(self, place: Place) -> list[str]:
        flags = ["--port", str(place.port), *model_flags(place.models)]
        return [place.python, program("pytriton_models"), *flags]

    def url(self, place: Place, model: str) -> str:
        return f"http://127.0.0.1:{place.port}/v2/models/{model}/infer"

    def body(self, model: Model, size: int) -> Body:
        sent = {"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": ["x" * size]}
        return Body(json.dumps({"inputs": [sent]}).encode(), "application/json")
