"""Our frontend as it is, with a link that has the answer already: what HTTP costs us.

Connection, limits, dialect, request payload and answer are the real ones;
no message is sent, nobody else is asked.

    python benchmarks/layers/http_only.py PORT
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from stoker.frontend.app import Frontend
from stoker.frontend.listeners import open_socket, plan_listeners
from stoker.frontend.serving import FrontendServer
from stoker.settings import Settings
from stoker.wire.frames import SubmittedJob
from stoker.wire.link import Link
from stoker.wire.payloads import Answer, AnswerKind
from stoker.wire.pending import Pending

ANSWER_BYTES = b"x" * 100
DEADLINE_S = 60.0
_COUNTER = itertools.count(1)


class InstantLink(Link):
    """Answers in the same turn of the loop what the supervisor would have answered."""

    async def start(self) -> None:
        return

    async def wait_connected(self, timeout_s: float) -> None:
        return

    async def close(self) -> None:
        return

    def submit(self, *about: Any, **further: Any) -> Pending:
        job_id = self.frontend_id + next(_COUNTER).to_bytes(8, "big")
        deadline = time.monotonic() + DEADLINE_S
        job = SubmittedJob(job_id, "echo", None, deadline, 0, b"")
        pending = Pending(self, job, deadline, further.get("on_end"))
        answer = Answer(job_id, AnswerKind.FINAL, 200, "OK", None, [], ANSWER_BYTES)
        asyncio.get_running_loop().call_soon(lambda: pending.put(answer, is_last=True))
        return pending


async def serve(port: int, runtime_dir: Path) -> None:
    settings = Settings(
        runtime_dir=runtime_dir,
        inference_address=f"http://127.0.0.1:{port}",
        management_address=f"http://127.0.0.1:{port}",
        metrics_address=f"http://127.0.0.1:{port}",
        log_level="warning",
    )
    listeners = plan_listeners(settings)
    frontend = Frontend(settings, listeners, InstantLink(Path("nobody")))
    sockets = [open_socket(listener.address) for listener in listeners]
    await FrontendServer(frontend).serve(sockets)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="http-", dir="/tmp") as folder:
        os.chmod(folder, 0o700)
        uvloop.run(serve(int(sys.argv[1]), Path(folder)))
