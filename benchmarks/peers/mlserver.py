"""MLServer: the Open Inference Protocol on FastAPI."""

from __future__ import annotations

import json

from scenarios import Model

from peers.peer import MODELS_FOLDER, PROGRAMS, WITHOUT_CNN, Body, Peer, Place

KINDS = {"echo_handler:size": "Size", "echo_handler:slow": "Slow"}


class MlServer(Peer):
    name = "MLServer"
    # Newer uvloops end its workers at once.
    requirements = ("mlserver", "uvloop<0.22")
    models = WITHOUT_CNN
    settings = "Open Inference JSON with one string, one parallel worker"

    def command(self, place: Place) -> list[str]:
        server = {
            "host": "127.0.0.1",
            "http_port": place.port,
            "grpc_port": place.management_port,
            "metrics_port": place.management_port + 1,
            "parallel_workers": 1,
            "debug": False,
        }
        (place.home / "settings.json").write_text(json.dumps(server))
        for model in place.models:
            folder = place.home / model.name
            folder.mkdir()
            about: dict[str, object] = {
                "name": model.name,
                "implementation": f"mlserver_models.{KINDS.get(model.handler, 'Echo')}",
            }
            if model.batch_size > 1:
                about["max_batch_size"] = model.batch_size
                about["max_batch_time"] = model.max_batch_delay_ms / 1000
            (folder / "model-settings.json").write_text(json.dumps(about))
        return [str(place.bin / "mlserver"), "start", str(place.home)]

    def url(self, place: Place, model: str) -> str:
        return f"http://127.0.0.1:{place.port}/v2/models/{model}/infer"

    def body(self, model: Model, size: int) -> Body:
        sent = {"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": ["x" * size]}
        return Body(json.dumps({"inputs": [sent]}).encode(), "application/json")

    def environment(self, place: Place) -> dict[str, str]:
        return {"PYTHONPATH": f"{MODELS_FOLDER}:{PROGRAMS}"}

    def is_worker(self, command_line: str) -> bool:
        return "spawn_main" in command_line
