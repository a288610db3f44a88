"""Three pieces, each sent only when the test has let it."""

import os

from stoker.handlers.streaming import send_intermediate_predict_response


def wait_at(name):
    with open(os.path.join(os.environ["E2E_GATES"], name), "rb") as gate:
        gate.read()


def handle(data, context):
    if data is None:
        return None
    asked = data[0]["body"]
    context.set_response_content_type(0, "text/event-stream")
    for piece, gate in asked["pieces"]:
        send_intermediate_predict_response(
            [piece] * len(data), context.request_ids, "piece", 200, context
        )
        if gate:
            wait_at(gate)
    if "raise" in asked:
        raise ValueError(asked["raise"])
    return [asked.get("last", "")] * len(data)
