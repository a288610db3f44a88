"""multi-model-server (MMS): TorchServe's ancestor, on the JVM."""

from __future__ import annotations

from peers.java_archives import JavaPeer
from peers.peer import EVERYTHING, Place


class MultiModelServer(JavaPeer):
    name = "MMS"
    requirements = ("multi-model-server",)
    wants_torch = True
    models = EVERYTHING
    settings = "log level error, JVM warmed up for 6 s"

    def command(self, place: Place) -> list[str]:
        # It numbers the sockets of its workers from a fixed port in /tmp.
        first_worker_port = 9000 + place.port % 20000
        store, config, log_config = self.write_files(
            place, {"default_workers_per_model": 1, "initial_worker_port": first_worker_port}
        )
        command = [str(place.bin / "multi-model-server"), "--start", "--foreground"]
        command += ["--mms-config", config, "--model-store", store]
        return [*command, "--log-config", log_config]

    def environment(self, place: Place) -> dict[str, str]:
        return {"TMPDIR": str(place.home), "TEMP": str(place.home)}
