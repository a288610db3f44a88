"""mosec: a Rust core with Python workers."""

from __future__ import annotations

from peers.peer import EVERYTHING, Peer, Place, model_flags, program


class Mosec(Peer):
    name = "mosec"
    requirements = ("mosec",)
    wants_torch = True
    models = EVERYTHING
    settings = "capacity 2048, log level error"

    def command(self, place: Place) -> list[str]:
        flags = ["--port", str(place.port), "--address", "127.0.0.1"]
        if place.queue_size:
            flags += ["--capacity", str(place.queue_size)]
        flags += ["--timeout", "60000", "--max-request-size", str(128 << 20)]
        flags += ["--path", str(place.home / "ipc"), "--log-level", "error"]
        return [place.python, program("mosec_models"), *flags]

    def environment(self, place: Place) -> dict[str, str]:
        # Its own flags are all there is on the command line.
        return {"BENCH_MODELS": " ".join(model_flags(place.models))}

    def is_worker(self, command_line: str) -> bool:
        return "spawn_main" in command_line
