"""The body of a request, as an ASGI server gives it."""

from __future__ import annotations

from typing import Any


async def read_body(receive: Any) -> bytes:
    pieces = []
    while True:
        message = await receive()
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)
