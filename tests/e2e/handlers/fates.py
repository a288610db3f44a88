"""The first word of a body says what becomes of it and of its worker; each is noted when begun."""

import ctypes
import os
import signal
import threading
import time

HOARD = []
ENDS = {
    "segv": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def note(context, text):
    """One line, in one piece, whoever else writes."""
    path = os.path.join(os.environ["E2E_GATES"], f"noted-{context.model_name}")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def handle(data, context):
    if data is None:
        return None
    words = [bytes(item["body"]).decode().split() for item in data]
    for each in words:
        note(context, "began " + " ".join(each))
    for each in words:
        meet(context, each)
    return [" ".join(each) if each[0] != "pid" else str(os.getpid()) for each in words]


def meet(context, words):
    fate, *rest = words
    if fate == "gate":
        with open(os.path.join(os.environ["E2E_GATES"], rest[0]), "rb") as gate:
            gate.read()
    elif fate == "die":
        ENDS[rest[0]]()
    elif fate == "hang":
        while True:
            time.sleep(60)
    elif fate == "deaf":
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
        while True:
            time.sleep(60)
    elif fate == "heed":
        while not context.cancelled:
            time.sleep(0.001)
        note(context, "cancelled " + " ".join(words))
    elif fate == "grow":
        HOARD.append(bytearray(os.urandom(1)) * (int(rest[0]) << 20))
        time.sleep(float(rest[1]) if rest[1:] else 0.0)
    elif fate == "nap":
        time.sleep(float(rest[0]))
    elif fate == "left":
        note(context, f"left {context.deadline - time.monotonic():.3f}")


def brief(data, context):
    """Loads, and dies soon by itself."""
    if data is None:
        threading.Timer(0.05, os._exit, (7,)).start()
        return None
    return handle(data, context)
