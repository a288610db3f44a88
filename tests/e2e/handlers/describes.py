"""Says of itself what its model's name asks for; predicts `predicted`."""

from does import wait_at

SAID = {"object": {"labels": ["cat", "dog"], "shape": [3, 224, 224]}, "nothing": None, "text": "x"}


def handle(data, context):
    if data is None:
        return None
    if context.get_request_header(0, "describe") != "True":
        return ["predicted"] * len(data)
    assert data == [{}]
    if context.model_name == "silent":
        wait_at("silent")
    if context.model_name == "wrong":
        raise ValueError("cannot say")
    context.set_response_header(0, "X-Described-By", context.model_name)
    return [SAID[context.model_name]]
