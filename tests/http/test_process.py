"""The frontend as its own processes under gunicorn: start, stop, and what it tells others."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stoker.exit_codes import ExitCode
from stoker.frontend.app import Frontend
from stoker.frontend.listeners import open_socket, plan_listeners
from stoker.frontend.serving import FrontendServer
from stoker.wire.link import Link

NOWHERE = "http://127.0.0.1:0"
PATIENCE_S = 20


@pytest.fixture
def folder(supervisor) -> Path:
    return supervisor.runtime_dir


@pytest.fixture
def notify_socket(folder: Path) -> Iterator[socket.socket]:
    path = folder / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(PATIENCE_S)
        yield receiver
    path.unlink()


@pytest.fixture
def start(folder: Path, until) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `python -m stoker.frontend` with flags; stopped at the end whatever happens."""
    started: list[subprocess.Popen[str]] = []

    def run(**flags: str) -> subprocess.Popen[str]:
        wanted = {
            "inference_address": NOWHERE,
            "management_address": NOWHERE,
            "metrics_address": NOWHERE,
            "runtime_dir": str(folder),
            "state_dir": str(folder / "state"),
            "cache_dir": str(folder / "cache"),
            **flags,
        }
        argv = [f"--{name.replace('_', '-')}={value}" for name, value in wanted.items()]
        environ = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(folder / "notify.sock")}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stoker.frontend", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            cwd=folder,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        process.communicate()


def _ask(address: str, request: bytes) -> bytes:
    with socket.create_connection(_place(address), timeout=PATIENCE_S) as client:
        client.sendall(request)
        return client.recv(65536)


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("http://").rpartition(":")
    return host, int(port)


def _addresses(folder: Path) -> Any:
    return json.loads((folder / "addresses.json").read_text())


@pytest.mark.slow
def test_frontend_serves_says_ready_and_stops_cleanly(
    start, folder, supervisor, notify_socket, echo, until
):
    """
    READY means a request finds somebody; SIGTERM ends with 0 and nobody is left.
    """
    process = start(frontend_processes="2")

    ready = notify_socket.recv(4096).decode()
    addresses = _addresses(folder)
    answer = _ask(
        addresses["inference"],
        b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi",
    )
    master = psutil.Process(process.pid)
    # READY speaks for the first process; the second may still be on its way.
    until(lambda: len(master.children()) == 2, "both processes are there")
    until(
        lambda: all(one.cmdline()[0].startswith("stoker: frontend") for one in master.children()),
        "both have their titles",
    )
    children = master.children()
    titles = [child.cmdline()[0] for child in (master, *children)]
    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE_S) == 0
    assert "READY=1" in ready.split("\n")
    assert addresses.keys() == {"inference", "management", "metrics"}
    assert len(set(addresses.values())) == 3
    assert answer.startswith(b"HTTP/1.1 200 \r\n")
    assert answer.endswith(b"\r\n\r\nhi")
    assert len(children) == 2
    assert all(title.startswith("stoker: frontend") for title in titles)
    assert not any(child.is_running() for child in children)


@pytest.mark.slow
def test_a_master_holds_none_of_what_only_its_imports_ran(start, supervisor, notify_socket, echo):
    """
    Under systemd it imports everything itself, and then waits for months; the start of
    OpenSSL alone reads 3 MB.
    """
    process = start()

    notify_socket.recv(4096)
    mapped = psutil.Process(process.pid).memory_maps()

    held_bytes = sum(one.rss - one.anonymous for one in mapped if "libcrypto" in one.path)
    assert held_bytes < 500_000


@pytest.mark.slow
def test_request_in_hand_is_answered_before_the_frontend_ends(
    start, folder, supervisor, notify_socket, until
):
    """
    A restart of the service loses no answer.
    """
    supervisor.models["m"] = lambda job: []
    process = start()
    notify_socket.recv(4096)
    place = _place(_addresses(folder)["inference"])

    with socket.create_connection(place, timeout=PATIENCE_S) as client:
        client.sendall(b"GET /predictions/m HTTP/1.1\r\nHost: t\r\n\r\n")
        until(lambda: bool(supervisor.jobs), "the job is with the supervisor")
        process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(place), "who comes now is told to try another server")
        supervisor.send_later(supervisor.jobs[-1].final(b"done"))
        answer = client.recv(65536)

    assert answer.endswith(b"connection: close\r\n\r\ndone")
    assert process.wait(PATIENCE_S) == 0


def _refuses(place: tuple[str, int]) -> bool:
    with socket.create_connection(place, timeout=PATIENCE_S) as client:
        client.sendall(b"GET /api-description HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        head = client.recv(65536)
    return head.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 1\r\n" in head


@pytest.mark.slow
def test_quit_does_not_wait_for_requests_in_hand(start, folder, supervisor, notify_socket, until):
    """
    The second Ctrl-C means now.
    """
    supervisor.models["m"] = lambda job: []
    process = start()
    notify_socket.recv(4096)
    place = _place(_addresses(folder)["inference"])
    with socket.create_connection(place, timeout=PATIENCE_S) as client:
        client.sendall(b"GET /predictions/m HTTP/1.1\r\nHost: t\r\n\r\n")
        until(lambda: bool(supervisor.jobs), "the job is with the supervisor")
        asked_at = time.monotonic()

        process.send_signal(signal.SIGQUIT)

        process.wait(PATIENCE_S)
    assert time.monotonic() - asked_at < 10


def test_a_stop_does_not_wait_for_a_supervisor_that_never_came(make_settings, monkeypatch):
    """
    A start that fails, for a reason that only the supervisor sees, is told at once.
    """
    monkeypatch.setattr("stoker.frontend.app.WELCOME_WAIT_S", 3600.0)
    settings = make_settings()
    listeners = plan_listeners(settings)
    bound = [open_socket(listener.address, 0o600) for listener in listeners]

    async def serve() -> bool:
        link = Link(settings.runtime_dir / "nobody")
        server = FrontendServer(Frontend(settings, listeners, link))
        serving = asyncio.create_task(server.serve(bound))
        await asyncio.sleep(0)
        server.stop()
        await asyncio.wait_for(serving, PATIENCE_S)
        return server.has_listened

    assert not asyncio.run(serve())
    for each in bound:
        each.close()


@pytest.mark.slow
def test_taken_address_stops_the_start_with_the_peers_words(start):
    """
    Tooling greps for this line (1.1); the launcher turns the code into 1.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"

        process = start(management_address=address)
        _, said = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == ExitCode.ADDRESS_IN_USE
    assert f"Failed to bind to address: {address}" in said


@pytest.mark.slow
def test_stale_unix_socket_is_taken_over_and_removed_at_the_end(
    start, folder, supervisor, notify_socket, echo
):
    """
    A crash leaves a socket behind; the next start must not need a hand.
    """
    path = folder / "api.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    process = start(inference_address=f"unix:{path}")
    notify_socket.recv(4096)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /predictions/echo HTTP/1.1\r\nHost: t\r\n\r\n")
        answer = client.recv(65536)
    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE_S) == 0
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not path.exists()
