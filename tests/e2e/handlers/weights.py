"""Loads something large, and notes that it did; tells its process and what it was given."""

import os
import threading

WEIGHTS = bytearray()
PLACE = {}


def note(text):
    path = os.path.join(os.environ["E2E_GATES"], "loads")
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def handle(data, context):
    if data is None:
        note(os.getpid())
        if "threaded" in context.model_name:
            threading.Thread(target=threading.Event().wait, name="reader", daemon=True).start()
        if "broken" in context.model_name:
            raise OSError("no weights")
        WEIGHTS.extend(b"w" * (64 << 20))
        PLACE["batch_size"] = context.system_properties["batch_size"]
        return None
    return [
        {
            "pid": os.getpid(),
            "weights": len(WEIGHTS),
            "loaded_for": PLACE["batch_size"],
            "batch_size": context.system_properties["batch_size"],
        }
        for _ in data
    ]
