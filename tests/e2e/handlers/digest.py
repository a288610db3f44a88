"""Says what kind of value the body is and what is in it; may wait for the test first."""

import contextlib
import hashlib
import os


def handle(data, context):
    if data is None:
        return None
    return [_told(item["body"], context.get_request_header(i, "x-gate"))
            for i, item in enumerate(data)]  # fmt: skip


def _told(body, gate):
    if gate:
        # Tried again after the test has taken the gate away, nothing holds it.
        place = os.path.join(os.environ["E2E_GATES"], gate)
        with contextlib.suppress(FileNotFoundError), open(place, "rb") as held:
            held.read()
    if isinstance(body, (bytes, bytearray)):
        told = f"{type(body).__name__} {hashlib.sha256(body).hexdigest()}"
        if isinstance(body, bytearray):
            body[:] = bytes(len(body))  # handlers may; nobody else may see it
        return told
    return f"{type(body).__name__} {len(body)}"
