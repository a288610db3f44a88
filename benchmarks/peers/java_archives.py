"""What TorchServe and MMS share: archives with our handlers, and registering over HTTP."""

from __future__ import annotations

import http.client
import json
import zipfile
from pathlib import Path
from urllib.parse import urlencode

from scenarios import Model

from peers.peer import MODELS_FOLDER, Peer, Place

#: Errors only: writing a line per request is not what we measure.
LOG_CONFIG = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders>
    <Console name="console" target="SYSTEM_ERR"><PatternLayout pattern="%d %p %m%n"/></Console>
  </Appenders>
  <Loggers><Root level="error"><AppenderRef ref="console"/></Root></Loggers>
</Configuration>
"""

#: A synchronous registration of a model that imports torch.
REGISTER_TIMEOUT_S = 90.0


def write_archive(store: Path, model: Model) -> None:
    """`NAME.mar`: the handler, what it imports, and the manifest both servers read."""
    manifest = {
        "createdOn": "01/01/2026 00:00:00",
        "specificationVersion": "1.0",
        "implementationVersion": "1.0",
        "modelServerVersion": "1.0",
        "archiverVersion": "1.0",
        "runtime": "python",
        "model": {"modelName": model.name, "modelVersion": "1.0", "handler": model.handler},
    }
    with zipfile.ZipFile(store / f"{model.name}.mar", "w") as archive:
        for source in MODELS_FOLDER.glob("*.py"):
            archive.write(source, source.name)
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))


class JavaPeer(Peer):
    """A server with TorchServe's HTTP interface and archives."""

    needs = ("java",)
    warmup_s = 6.0

    def write_files(self, place: Place, properties: dict[str, object]) -> tuple[str, str, str]:
        """Archives, settings and log settings; the paths of all three."""
        store, config = place.home / "store", place.home / "config.properties"
        store.mkdir(exist_ok=True)
        for model in place.models:
            write_archive(store, model)
        lines = {
            "inference_address": f"http://127.0.0.1:{place.port}",
            "management_address": f"http://127.0.0.1:{place.management_port}",
            **({"job_queue_size": place.queue_size} if place.queue_size else {}),
            "max_request_size": 128 << 20,
            "max_response_size": 16 << 20,
            **properties,
        }
        config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        log_config = place.home / "log.xml"
        log_config.write_text(LOG_CONFIG)
        return str(store), str(config), str(log_config)

    def url(self, place: Place, model: str) -> str:
        return f"http://127.0.0.1:{place.port}/predictions/{model}"

    def after_start(self, place: Place) -> None:
        for model in place.models:
            query = {"url": f"{model.name}.mar", "initial_workers": 1, "synchronous": "true"}
            query["batch_size"] = model.batch_size
            query["max_batch_delay"] = max(1, model.max_batch_delay_ms)
            connection = http.client.HTTPConnection(
                "127.0.0.1", place.management_port, timeout=REGISTER_TIMEOUT_S
            )
            connection.request("POST", f"/models?{urlencode(query)}")
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            connection.close()
            if answer.status != 200:
                raise RuntimeError(f"registering {model.name}: {answer.status} {text[:300]}")

    def is_worker(self, command_line: str) -> bool:
        return "model_service_worker" in command_line
