"""A handler of several processes that writes down what each of them is and gets."""

import json
import os
import threading
from pathlib import Path

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
NOTES = Path(os.environ["E2E_GATES"])


class Ranked:
    def initialize(self, context):
        self.rank = int(os.environ["RANK"])
        config = context.model_yaml_config
        if config.get("fails") == self.rank:
            raise ValueError(f"rank {self.rank} cannot load")
        if "fails" in config:
            threading.Event().wait()  # as for a rank that never joins
        self.note("loaded", pid=os.getpid(), env={name: os.environ.get(name) for name in NAMES})

    def handle(self, data, context):
        body = bytes(data[0]["body"])
        if body == b"die" and self.rank == 1:
            os._exit(7)
        if body == b"die":
            threading.Event().wait()  # as in a collective call
        if body == b"fail":
            raise ValueError("asked to")
        self.note("got", size=len(body), id=context.get_request_id(0))
        return [f"rank {self.rank}"] * len(data)

    def note(self, what, **facts):
        line = json.dumps({"rank": self.rank, "what": what, **facts})
        with open(NOTES / "ranks", "a") as file:
            file.write(line + "\n")
