"""Fixtures around `live_server.py`; a conftest that wants them imports them all.

A module shares one server (`server`), because starting one takes about a
second; what a test registered is gone before the next one starts, and an error
in the log that the test did not announce fails it.  Tests that kill processes
or need other settings start their own (`start_server`).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from live_server import HANDLERS, RUNNING, Server, find_leftovers, has_ended

from stoker.archives.pack import Parts, pack

__all__ = [
    "_orphans_come_to_us",
    "is_gone",
    "leftovers",
    "model_store",
    "pack_model",
    "pytest_runtest_makereport",
    "server",
    "server_flags",
    "server_of_module",
    "start_server",
]

_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="module", autouse=True)
def _orphans_come_to_us() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1) == 0
    yield
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A failure comes with what the servers had to say."""
    report = yield
    if report.failed:
        for server in RUNNING:
            report.sections.append((f"log of {server.home.name}", server.log_tail()))
    return report


# -- archives --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`noop.mar` 1.0, `noop_2.mar` (noop 2.0), the folder `noop-v1.0`, and broken ones."""
    store = tmp_path_factory.mktemp("store")
    aside = tmp_path_factory.mktemp("aside")
    handler = str(HANDLERS / "noop.py")

    def add(name: str, model: str, version: str = "1.0", handler: str = handler) -> None:
        pack(Parts(model, handler, version), aside).rename(store / name)

    add("noop.mar", "noop")
    add("noop_2.mar", "noop", "2.0")
    add("demo.mar", "demo")
    add("squeezenet1_1.mar", "squeezenet1_1")
    for name in ("alexnet", "densenet161"):
        add(f"{name}.mar", name)
    for name, model in (("noop-v1.0", "noop"), ("noop-v0.1", "noop_v0.1")):
        pack(Parts(model, handler), aside, "no-archive").rename(store / name)
    pack(Parts("tarred", handler), store, "tgz")
    (store / "damaged.mar").write_bytes(b"PK\x03\x04 this is no archive")
    return store


@pytest.fixture(scope="session")
def pack_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Pack a handler of ours as a `.mar` somewhere and return where."""

    def make(model: str, handler: str = "noop.py", version: str = "1.0", config: str = "") -> Path:
        folder = tmp_path_factory.mktemp("mar")
        config_file = None
        if config:
            config_file = folder / "model-config.yaml"
            config_file.write_text(config, encoding="utf-8")
        parts = Parts(model, str(HANDLERS / handler), version, config_file=config_file)
        return pack(parts, folder)

    return make


class Origin:
    """A web server on loopback that plays `torchserve.pytorch.org`."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.files: dict[str, bytes] = {
            f"/{place}/{path.name}": path.read_bytes()
            for place in ("mar_files", "sse-test")
            for path in folder.glob("*.mar")
        }
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                origin.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                content = origin.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


# -- fixtures --------------------------------------------------------------------------

StartServer = Callable[..., Server]


@pytest.fixture(scope="module")
def server_flags() -> tuple[str, ...]:
    """Flags of the module's server; a module may override this."""
    return ()


@pytest.fixture(scope="module")
def server_of_module(
    model_store: Path, server_flags: tuple[str, ...], _orphans_come_to_us: None
) -> Iterator[Server]:
    origin = Origin(model_store)
    aws = {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    server = Server(
        *("--allowed-urls", r"http://127\.0\.0\.1:\d+/(mar_files|sse-test)/.*"),
        *server_flags,
        model_store=model_store,
        env=aws,
    )
    server.origin = origin
    try:
        server.wait_started()
        yield server
        server.stop()
    finally:
        server.destroy()
        origin.close()


@pytest.fixture
def server(server_of_module: Server) -> Iterator[Server]:
    """The module's server with nothing registered."""
    yield server_of_module
    server_of_module.clear()
    server_of_module.check_errors()


@pytest.fixture
def start_server(model_store: Path) -> Iterator[StartServer]:
    """A server of the test's own; stopped and checked at the end unless it is gone already."""
    started: list[Server] = []

    def start(
        *flags: str,
        prefix: tuple[str, ...] = (),
        mode: int = 0o700,
        owner: int | None = None,
        **env: str,
    ) -> Server:
        about = {"prefix": prefix, "mode": mode, "owner": owner}
        started.append(Server(*flags, model_store=model_store, env=env, **about))
        started[-1].wait_started()
        return started[-1]

    try:
        yield start
        for server in started:
            if server.process.poll() is None:
                server.stop()
    finally:
        for server in started:
            server.destroy()


@pytest.fixture
def leftovers() -> Callable[[], list[str]]:
    return find_leftovers


@pytest.fixture
def is_gone() -> Callable[[int], bool]:
    return has_ended
