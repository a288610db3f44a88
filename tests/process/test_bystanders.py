"""A bystander blames a server for what the server does, and not for a busy machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from facts import wait_until
from live_crowds import P99_S, Bystander, waited_for_processor_s

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def serving(nap_s: float) -> Iterator[Any]:
    """An echo in this process that takes its time."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            time.sleep(nap_s)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield SimpleNamespace(
            addresses={"inference": address}, tree=lambda: [psutil.Process(os.getpid())]
        )
        server.shutdown()


def test_a_server_that_keeps_a_request_waiting_is_blamed() -> None:
    """
    Whether it computes, blocks or sleeps.
    """
    with serving(nap_s=P99_S + 0.5) as server, Bystander(server, "echo") as bystander:
        pass  # it stays until it has an answer

    with pytest.raises(AssertionError):
        bystander.judge()


def test_a_server_that_answers_is_not() -> None:
    with serving(nap_s=0.0) as server, Bystander(server, "echo") as bystander:
        wait_until(lambda: len(bystander.took_s) > 20, "it has been answered")

    bystander.judge()


def test_who_shares_a_processor_waits_for_it_and_who_sleeps_does_not() -> None:
    """
    Three that spin on one processor have it for a third of the time each.
    """
    core = min(os.sched_getaffinity(0))
    spin = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    commands = [[sys.executable, "-c", code] for code in (spin, spin, spin, "input()")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for command in commands]
    try:
        *spinning, sleeping = [process.pid for process in processes]
        wait_until(lambda: waited_for_processor_s(spinning) > 1.0, "they wait for each other")

        assert waited_for_processor_s([sleeping]) < 0.5 * waited_for_processor_s(spinning)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
