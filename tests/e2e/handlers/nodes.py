"""Functions of the workflows in tests: TorchServe's function contract, one request at a time."""

import json
import os
import time


def _said(data):
    return {name: bytes(value).decode() for name, value in data[0].items()}


def pre(data, context):
    if data is None:
        return None
    body = bytes(data[0].get("body", b""))
    if body == b"refuse":
        raise ValueError("this one is refused")
    return [body + b"!"]


def join(data, context):
    """Everything it was given, and who asked."""
    if data is None:
        return None
    return [json.dumps({"got": _said(data), "asked": context.get_request_id(0)})]


def left(data, context):
    if data is None:
        return None
    return [{"left": _said(data)["body"]}]


def right(data, context):
    if data is None:
        return None
    return [{"right": _said(data)["body"]}]


def slow(data, context):
    if data is None:
        return None
    time.sleep(float(bytes(data[0]["body"]).rstrip(b"!")))
    return [b"slept"]


def pieces(data, context):
    if data is None:
        return None
    return _pieces(bytes(data[0]["body"]).decode())


def _pieces(text):
    for letter in text[:-1]:
        yield [letter]
    return [text[-1]]


def flaky(data, context):
    """Fails the first time that it is asked for a name."""
    if data is None:
        return None
    path = os.path.join(os.environ["E2E_GATES"], bytes(data[0]["body"]).decode().rstrip("!"))
    if not os.path.exists(path):
        open(path, "w").close()
        raise ValueError("not yet")
    return [b"at last"]
