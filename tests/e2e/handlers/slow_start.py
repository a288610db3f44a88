"""Is ready when the test says so."""

import os


def handle(data, context):
    if data is None:
        with open(os.path.join(os.environ["E2E_GATES"], "start"), "rb") as gate:
            gate.read()
        return None
    return ["OK"] * len(data)
