"""BentoML: a service class on Starlette."""

from __future__ import annotations

import json

from scenarios import ECHO_32, Model

from peers.peer import MODELS_FOLDER, PROGRAMS, WITHOUT_CNN, Body, Peer, Place


class BentoMl(Peer):
    name = "BentoML"
    requirements = ("bentoml",)
    models = WITHOUT_CNN
    settings = "JSON with one string, one worker, access log off"

    def command(self, place: Place) -> list[str]:
        command = [str(place.bin / "bentoml"), "serve", "bentoml_models:Models"]
        command += ["--working-dir", str(PROGRAMS), "--host", "127.0.0.1"]
        return [*command, "--port", str(place.port)]

    def body(self, model: Model, size: int) -> Body:
        text = "x" * size
        sent = {"text": [text] if model.name == ECHO_32.name else text}
        return Body(json.dumps(sent).encode(), "application/json")

    def environment(self, place: Place) -> dict[str, str]:
        return {
            "PYTHONPATH": f"{MODELS_FOLDER}:{PROGRAMS}",
            "BENTOML_HOME": str(place.home / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "1",
        }
