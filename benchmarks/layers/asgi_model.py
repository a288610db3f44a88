"""The least server of the small network: bare ASGI, one pipe, and the bare loop at its end.

No queue, no batches, no limits, no handler: what is lost here against the bare
loop, no server can win that keeps HTTP and models in processes of their own.

    python benchmarks/layers/asgi_model.py PORT
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "models"))

from asgi_body import read_body
from cnn import BODY_BYTES, Classifier

HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"1")]


def classify(end: socket.socket) -> None:
    """Until the other end is closed: a picture in, a digit out."""
    classifier = Classifier()
    picture = bytearray(BODY_BYTES)
    while end.recv_into(picture, BODY_BYTES, socket.MSG_WAITALL) == BODY_BYTES:
        end.sendall(classifier([picture])[0].encode())


class App:
    """What is no picture is answered at once: so is the question whether we are there."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._waiting: deque[asyncio.Future[bytes]] = deque()
        self._pipe: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._pipe is None:
            reader, self._pipe = await asyncio.open_connection(sock=self._end)
            self._listening = asyncio.create_task(self._listen(reader))
        body = await read_body(receive)
        digit = b"-"
        if len(body) == BODY_BYTES:
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            self._pipe.write(body)
            digit = await future
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": digit})

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while digits := await reader.read(1024):
            for digit in digits:
                self._waiting.popleft().set_result(bytes((digit,)))


def main(port: int) -> None:
    ours, theirs = socket.socketpair()
    if not os.fork():
        ours.close()
        classify(theirs)
        os._exit(0)
    theirs.close()
    import uvicorn  # behind the fork: the child needs none of it

    uvicorn.run(
        App(ours),
        host="127.0.0.1",
        port=port,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_level="error",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
