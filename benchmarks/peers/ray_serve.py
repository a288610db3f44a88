"""Ray Serve: deployments on Ray actors."""

from __future__ import annotations

from peers.peer import EVERYTHING, Peer, Place, model_flags, program


class RayServe(Peer):
    name = "Ray Serve"
    requirements = ("ray[serve]",)
    wants_torch = True
    models = EVERYTHING
    start_timeout_s = 150.0
    settings = "access log off, max_ongoing_requests 2048"

    def command(self, place: Place) -> list[str]:
        flags = ["--port", str(place.port), *model_flags(place.models)]
        return [place.python, program("ray_models"), *flags]

    def environment(self, place: Place) -> dict[str, str]:
        return {"RAY_TMPDIR": str(place.home), "RAY_USAGE_STATS_ENABLED": "0"}

    def is_worker(self, command_line: str) -> bool:
        return command_line.startswith("ray::ServeReplica")
