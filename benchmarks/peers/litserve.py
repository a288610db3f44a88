"""LitServe: FastAPI in front of Python workers."""

from __future__ import annotations

import json

from scenarios import Model

from peers.peer import EVERYTHING, Body, Peer, Place, model_flags, program


class LitServe(Peer):
    name = "LitServe"
    requirements = ("litserve",)
    wants_torch = True
    models = EVERYTHING
    settings = "bodies as JSON strings, log level error"

    def command(self, place: Place) -> list[str]:
        flags = ["--port", str(place.port), *model_flags(place.models)]
        return [place.python, program("litserve_models"), *flags]

    def body(self, model: Model, size: int) -> Body:
        return Body(json.dumps({"input": "x" * size}).encode(), "application/json")

    def is_worker(self, command_line: str) -> bool:
        return "spawn_main" in command_line
