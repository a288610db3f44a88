"""The server of one HTTP process, and the gunicorn worker that runs it.

Each socket gets the protocol of its own site, with TLS or without, so a
request never has to be told which listener it came in by.  HTTP itself is
read in `connection.py`; here it is listened, waited and drained.
"""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import uvloop
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from stoker.frontend.app import Frontend
from stoker.frontend.connection import Connection
from stoker.frontend.listeners import BACKLOG
from stoker.frontend.server_state import ServerState
from stoker.frontend.shared_flag import SharedFlag
from stoker.frontend.site import Site
from stoker.frontend.tls_acceptor import TlsAcceptor
from stoker.logs import get_logger

#: How often a server that drains looks whether it is done.
_DRAIN_LOOK_S: Final = 0.02
#: For those who were refused last to read why.
_LAST_WORDS_S: Final = 0.5

log = get_logger("http")


class FrontendServer:
    """Serves a Frontend on sockets that somebody has bound, in the listeners' order.

    Args:
        is_replaced: Asked when it stops: does another process take the connections that come now?
            If none does, they are told so until the last answer is out.

    Attributes:
        is_listening: Connections are accepted.
        has_listened: They were at some time.
    """

    def __init__(
        self,
        frontend: Frontend,
        drain_timeout_s: float | None = None,
        is_replaced: Callable[[], bool] = lambda: False,
    ) -> None:
        self.state = ServerState()
        self._is_replaced = is_replaced
        self.is_listening = self.has_listened = False
        self._frontend = frontend
        self._drain_timeout_s = drain_timeout_s or frontend.settings.drain_timeout_s
        self._stopping = asyncio.Event()
        self._is_hurried = False

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Until told to stop, and then until everything accepted is answered."""
        try:
            if not await self._start():
                return
            listening = [
                await self._listen(site, bound)
                for site, bound in zip(self._frontend.sites, sockets, strict=True)
            ]
            self.is_listening = self.has_listened = True
            await self._stopping.wait()

            def close() -> None:
                for server in listening:
                    server.close()
                for bound in sockets:
                    bound.close()
                self.is_listening = False

            await self._drain(close)
            for server in listening:
                await server.wait_closed()
        finally:
            await self._frontend.stop()

    def stop(self) -> None:
        """Accept nothing new, answer what is here, end."""
        self._stopping.set()

    def leave(self) -> None:
        """End without waiting for requests in hand."""
        self._is_hurried = True
        self._stopping.set()

    async def _start(self) -> bool:
        """False: told to stop before there was a supervisor.  Nobody has been let in yet."""
        starting = asyncio.ensure_future(self._frontend.start())
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        await asyncio.wait((starting,))
        return False

    async def _drain(self, close: Callable[[], None]) -> None:
        """Answer what is here.  Others are refused in words as long as we are here anyhow."""
        state = self.state
        is_replaced = self._is_replaced()
        if is_replaced:
            close()
        state.is_draining = True
        for connection in list(state.connections):
            connection.drain()
            if is_replaced and not connection.is_busy:
                connection.end()  # and its client comes to the successor
        until = asyncio.get_running_loop().time() + self._drain_timeout_s
        if not await self._wait(lambda: not state.is_busy, until):
            log.error("not drained in time", connections=len(state.connections))
        if self.is_listening:
            close()
        for task in state.tasks:
            task.cancel()
        for connection in list(state.connections):
            connection.end()
        await self._wait(lambda: not state.connections, until + _LAST_WORDS_S, _LAST_WORDS_S)
        for connection in list(state.connections):
            connection.transport.abort()

    async def _wait(
        self, is_done: Callable[[], bool], until: float, most_s: float = float("inf")
    ) -> bool:
        """True unless it takes too long; nobody who wants us gone at once waits at all."""
        loop = asyncio.get_running_loop()
        until = min(until, loop.time() + most_s)
        while not (is_done() or self._is_hurried):
            if loop.time() >= until:
                return False
            await asyncio.sleep(_DRAIN_LOOK_S)
        return True

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
        return lambda: Connection(self.state, site)


class FrontendWorker(Worker):  # type: ignore[misc]
    """One HTTP process under gunicorn.

    Attributes:
        end: Of all of them; set by the master before the fork.
    """

    end: SharedFlag

    def init_signals(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        # Asks gunicorn's processes to open their log files anew; ours have none.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        # SIGABRT, by which gunicorn ends a process that hangs, shows where it does.
        faulthandler.disable()
        faulthandler.enable()

    def run(self) -> None:
        uvloop.run(self._serve())

    async def _serve(self) -> None:
        # One that is told to end while the others are not has a successor.
        server = FrontendServer(cast(Frontend, self.wsgi), is_replaced=lambda: not self.end.is_set)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, server.stop)
        loop.add_signal_handler(signal.SIGINT, server.leave)
        loop.add_signal_handler(signal.SIGQUIT, server.leave)
        self._beat(loop)
        try:
            # gunicorn wraps what it was handed; the loop wants the socket itself.
            await server.serve([listener.sock for listener in self.sockets])
        except Exception:
            log.exception("server failed")
            # Before it has listened, another process would fail as well.
            sys.exit(1 if server.has_listened else Arbiter.WORKER_BOOT_ERROR)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """gunicorn's proof that the loop turns, twice as often as it wants it."""
        self.notify()
        beat: Callable[[Any], None] = self._beat
        loop.call_later(self.timeout / 2, beat, loop)
