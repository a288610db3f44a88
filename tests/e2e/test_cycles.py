"""200 times register, scale, predict, unregister: nothing may be left behind or grow."""

from __future__ import annotations

import http.client
import threading
from urllib.parse import urlsplit

import pytest

from stoker.wire.arena_folder import arena_folder

pytestmark = pytest.mark.slow

STREAMS = 4
MIB = 1 << 20
#: Allocators do not give everything back; a leak of 20 KiB per cycle would show.
MAX_GROWTH_BYTES = 3 * MIB


class Stream:
    """One operator who cycles; odd ones use the archive, even ones the Python path."""

    def __init__(self, server, number):
        self._name = f"cycle{number}"
        source = "url=noop.mar&" if number % 2 else "handler=noop:handle&"
        self._steps = [
            ("management", "POST", f"/models?{source}model_name={self._name}"),
            ("management", "PUT", f"/models/{self._name}?min_worker=1&synchronous=true"),
            ("inference", "POST", f"/predictions/{self._name}"),
            ("management", "DELETE", f"/models/{self._name}"),
        ]
        self._clients = {
            listener: http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
            for listener, address in server.addresses.items()
        }
        self.statuses: list[int] = []

    def run(self, cycles):
        for _ in range(cycles):
            for listener, method, path in self._steps:
                client = self._clients[listener]
                client.request(method, path, b"x" if listener == "inference" else None)
                response = client.getresponse()
                response.read()
                self.statuses.append(response.status)

    def close(self):
        for client in self._clients.values():
            client.close()


def cycle(server, cycles):
    """That many cycles in STREAMS threads; every request must succeed."""
    streams = [Stream(server, number) for number in range(STREAMS)]
    threads = [
        threading.Thread(target=stream.run, args=(cycles // STREAMS,), daemon=True)
        for stream in streams
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for stream in streams:
        stream.close()
    statuses = [status for stream in streams for status in stream.statuses]
    assert statuses == [200] * (cycles * 4)


class Standing:
    """What a server that serves nothing holds."""

    def __init__(self, server, until):
        names = ("supervisor", "frontend")
        processes = {name: getattr(server, name) for name in names}
        # Closed connections and reaped workers are noticed a turn later.
        until(lambda: processes["frontend"].net_connections("tcp") != [], "it listens")
        until(
            lambda: all(
                connection.status == "LISTEN"
                for connection in processes["frontend"].net_connections("tcp")
            ),
            "every client's connection is closed",
        )
        self.pids = {process.pid for process in server.tree()}
        self.fds = {name: process.num_fds() for name, process in processes.items()}
        self.rss_bytes = {name: process.memory_info().rss for name, process in processes.items()}
        self.runtime_files = {path.name for path in server.runtime_dir.iterdir()}
        # Its own folder: other servers of this machine come and go meanwhile.
        self.shared_memory = {path.name for path in arena_folder(server.runtime_dir).glob("*")}


def test_200_cycles_leave_nothing_and_grow_nothing(start_server, until):
    """
    Issue, "Done means": no process, socket, temp file or memory growth.
    """
    server = start_server()
    cycle(server, 52)
    early = Standing(server, until)

    cycle(server, 148)
    late = Standing(server, until)

    assert late.pids == early.pids
    assert late.fds == early.fds
    assert late.runtime_files == early.runtime_files
    assert late.shared_memory == early.shared_memory
    for name, before in early.rss_bytes.items():
        assert late.rss_bytes[name] - before < MAX_GROWTH_BYTES, name
    copies = [path for path in (server.cache_dir / "archives").iterdir() if path.is_dir()]
    assert len(copies) == 1
    assert server.manage("GET", "/models").json["models"] == []
