"""The cheapest server of our kind: uvicorn with httptools and uvloop, one process, an echo.

No worker, no supervisor, no limits: what HTTP alone costs in Python.
`bench-quick` and the full run compare everything with this, taken in the same run.

    python benchmarks/layers/asgi_echo.py PORT
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from asgi_body import read_body

HEADERS = [(b"content-type", b"application/octet-stream")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Every path echoes, but `/size` answers with the length."""
    body = await read_body(receive)
    if scope["path"] == "/size":
        body = b"%d" % len(body)
    headers = [*HEADERS, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        http="httptools",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_level="error",
    )
