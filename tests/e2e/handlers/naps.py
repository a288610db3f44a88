"""An echo after 5 ms: for more requests than can be answered."""

import time

NAP_S = 0.005


def handle(data, context):
    if data is None:
        return None
    time.sleep(NAP_S)
    return [item["body"] for item in data]
