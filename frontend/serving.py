"""uvicorn's server and gunicorn's worker, fitted to our listeners.

Each socket gets the protocol of its own site, with TLS or without, so a
request never has to be told which listener it came in by.
"""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, ClassVar, cast

from gunicorn.arbiter import Arbiter
from uvicorn.config import Config
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from stoker.frontend.app import Frontend
from stoker.frontend.connection import Connection
from stoker.frontend.listeners import BACKLOG
from stoker.frontend.site import Site
from stoker.frontend.tls_acceptor import TlsAcceptor

#: What uvicorn may not decide for itself; also for tests that run without gunicorn.
CONFIG: dict[str, Any] = {
    "http": "httptools",
    "loop": "uvloop",
    "ws": "none",
    "lifespan": "on",
    "interface": "asgi3",
    "proxy_headers": False,
    "server_header": False,
    "date_header": False,
    "access_log": False,
}


class FrontendServer(Server):
    """Serves a Frontend on sockets that somebody has bound, in the listeners' order."""

    def __init__(self, config: Config, frontend: Frontend) -> None:
        super().__init__(config)
        self._frontend = frontend

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        self.servers = []
        for site, bound in zip(self._frontend.sites, sockets, strict=True):
            # An acceptor is closed and awaited as a server is, and nothing else.
            self.servers.append(cast(asyncio.Server, await self._listen(site, bound)))
        self.started = True

    async def _listen(self, site: Site, bound: socket.socket) -> asyncio.Server | TlsAcceptor:
        loop = asyncio.get_running_loop()
        if site.tls is not None:
            most = site.limits.connections
            plain = self._connect(site.plain or site)
            return TlsAcceptor(bound, site.tls, self._connect(site), plain, most)
        if bound.family == socket.AF_UNIX:
            return await loop.create_unix_server(self._connect(site), sock=bound, backlog=BACKLOG)
        return await loop.create_server(self._connect(site), sock=bound, backlog=BACKLOG)

    def _connect(self, site: Site) -> Callable[[], asyncio.Protocol]:
        return lambda: Connection(self.server_state, site)


class FrontendWorker(UvicornWorker):  # type: ignore[misc]
    """One HTTP process under gunicorn."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = CONFIG

    def init_signals(self) -> None:
        super().init_signals()
        # That has taken SIGABRT, by which gunicorn ends a process that hangs, away from it.
        faulthandler.disable()
        faulthandler.enable()

    async def _serve(self) -> None:
        frontend = cast(Frontend, self.wsgi)
        self.config.app = frontend
        self.config.timeout_graceful_shutdown = max(1, round(frontend.settings.drain_timeout_s))
        server = FrontendServer(self.config, frontend)

        def leave_now() -> None:
            server.force_exit = True
            server.should_exit = True

        # gunicorn's SIGQUIT means: do not wait for requests in hand.
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, leave_now)
        # gunicorn wraps what it was handed; uvicorn wants the socket itself.
        await server.serve(sockets=[listener.sock for listener in self.sockets])
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
