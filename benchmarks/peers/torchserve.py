"""TorchServe: whose interface we speak, on the JVM."""

from __future__ import annotations

from peers.java_archives import JavaPeer
from peers.peer import EVERYTHING, Place


class TorchServe(JavaPeer):
    name = "TorchServe"
    requirements = ("torchserve", "torch-model-archiver", "packaging", "pyyaml", "setuptools<81")
    wants_torch = True
    models = EVERYTHING
    settings = "log level error, JVM warmed up for 6 s"

    def command(self, place: Place) -> list[str]:
        store, config, log_config = self.write_files(
            place,
            {
                "metrics_address": f"http://127.0.0.1:{place.management_port + 1}",
                "grpc_inference_port": place.management_port + 2,
                "grpc_management_port": place.management_port + 3,
                "initial_worker_port": 9000 + place.port % 20000,
                "disable_system_metrics": "true",
                "disable_token_authorization": "true",
                "enable_model_api": "true",
                "model_store": place.home / "store",
            },
        )
        command = [str(place.bin / "torchserve"), "--start", "--foreground", "--ncs"]
        command += ["--disable-token-auth", "--ts-config", config, "--model-store", store]
        return [*command, "--log-config", log_config]

    def environment(self, place: Place) -> dict[str, str]:
        logs = str(place.home / "logs")
        return {"TMPDIR": str(place.home), "TEMP": str(place.home), "LOG_LOCATION": logs}
