"""Does what the JSON body asks for: {"gate": name} first, then {"do": what, ...}."""

import os
import signal
import time

from stoker.handlers.prediction import PredictionException

RESULTS = {
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"\x01\xfe"),
    "str": "h\u00e9 \u20ac",
    "dict": {"a": 1, "b": "\u00e9"},
    "list": [1, [2, 3]],
    "int": 7,
    "float": 0.5,
    "bool": True,
    "none": None,
    "unsupported": {1, 2},
    "ok": "OK",
}


def wait_at(name):
    """Until the test lets us go; opening a FIFO blocks until it is there too."""
    with open(os.path.join(os.environ["E2E_GATES"], name), "rb") as gate:
        gate.read()


def _one(asked, i, context):
    what = asked.get("do", "ok")
    if what == "status":
        context.set_response_status(asked["code"], asked.get("phrase", ""), i)
        return asked.get("text", "teapot")
    if what == "dress":
        context.set_response_content_type(i, "image/png")
        context.set_response_header(i, "X-Custom-Header", "7")
        context.set_response_header(i, "Pragma", "mine")
        return b"png"
    if what == "refuse":
        return PredictionException(asked["message"], asked["code"])
    if what == "big":
        return b"x" * asked["bytes"]
    if what == "generate":
        return _pieces(asked)
    if what == "pid":
        return str(os.getpid())
    return RESULTS[what]


def _pieces(asked):
    yield from asked["pieces"]
    if "gate" in asked:
        wait_at(asked["gate"])
    if "fail" in asked:
        raise ValueError(asked["fail"])


def handle(data, context):
    if data is None:
        return None
    bodies = [item["body"] if isinstance(item["body"], dict) else {} for item in data]
    for asked in bodies:
        what = asked.get("do")
        if "gate" in asked and what != "generate":
            print(f"at gate {asked['gate']}", flush=True)
            wait_at(asked["gate"])
        if what == "raise":
            raise ValueError(asked.get("message", "secret in /srv/models/x.py"))
        if what == "raise-refusal":
            raise PredictionException(asked["message"], asked["code"])
        if what == "memory":
            raise MemoryError("no more")
        if what == "cuda":
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        if what == "no-list":
            return {"a": "dict"}
        if what == "wrong-length":
            return []
        if what == "exit":
            os._exit(3)
        if what == "kill-self":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hang":
            hang_for_ever()
    return [_one(asked, i, context) for i, asked in enumerate(bodies)]


def hang_for_ever():
    while True:
        time.sleep(60)
