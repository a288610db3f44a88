"""`stoker serve` as a background process, watched until it is ready or has ended."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO

from stoker.cli.notify_socket import NotifySocket
from stoker.cli.progress import Progress
from stoker.cli.serve import command


def spawn(
    settings_argv: Sequence[str],
    environ: Mapping[str, str],
    notify: NotifySocket,
    output: IO[bytes] | None,
) -> subprocess.Popen[bytes]:
    """Start it in a session of its own; `output` is for both streams, None leaves them ours."""
    own = {name: value for name, value in environ.items() if name != "WATCHDOG_USEC"}
    return subprocess.Popen(
        command("stoker.cli", ["serve", *settings_argv]),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**own, "NOTIFY_SOCKET": str(notify.path)},
        start_new_session=True,
    )


def wait_ready(
    process: subprocess.Popen[bytes], notify: NotifySocket, timeout_s: float
) -> int | None:
    """0 once it is ready, its exit status if it ended before, None when it does neither in time."""
    deadline = time.monotonic() + timeout_s
    ended = os.pidfd_open(process.pid)
    try:
        with Progress("starting") as progress, selectors.DefaultSelector() as selector:
            selector.register(notify, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while (left_s := deadline - time.monotonic()) > 0:
                selector.select(min(left_s, progress.interval_s))
                if any(message.get("READY") == "1" for message in notify.receive_nowait()):
                    return 0
                if (status := process.poll()) is not None:
                    # An end before it was ready is a failure whatever it says.
                    return status or 1
                progress.tick()
    finally:
        os.close(ended)
    return None
