"""Takes a tenth of a second for a request, as if it computed."""

import time

SECONDS = 0.1


def handle(data, context):
    if data is None:
        return None
    time.sleep(SECONDS * len(data))
    return ["done"] * len(data)
