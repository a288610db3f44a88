"""Accepting on an https listener: TLS goes its way, plain HTTP is told off in plain HTTP.

The first byte of a TLS connection is that of a handshake record (0x16), and no
HTTP method begins so.  It is looked at without being taken, then the socket
goes to the loop's TLS or to a plain connection whose site refuses everything.

Source: contracts/torchserve.md 1.1 (TLS).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final

from stoker.logs import get_logger

_HANDSHAKE: Final = b"\x16"
#: Accepted in one turn of the loop, so that a crowd does not keep others waiting.
_BURST: Final = 64
_OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_S: Final = 1.0
#: Also the limit for the first byte.
HANDSHAKE_TIMEOUT_S: Final = 20.0

log = get_logger("http")

Connect = Callable[[], asyncio.Protocol]


class TlsAcceptor:
    """Stands where `loop.create_server` would: `close`, then `wait_closed`.

    Args:
        most: Connections that may be on their way at once; more are closed.
    """

    def __init__(
        self,
        bound: socket.socket,
        context: ssl.SSLContext,
        connect: Connect,
        connect_plain: Connect,
        most: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._bound = bound
        self._context = context
        self._connect = connect
        self._connect_plain = connect_plain
        self._most = most
        self._silent: dict[socket.socket, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        bound.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accept nothing more; who has not finished its handshake is not a client yet."""
        self._loop.remove_reader(self._bound)
        if self._pause is not None:
            self._pause.cancel()
        for client in list(self._silent):
            self._forget(client)
            client.close()
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _listen(self) -> None:
        self._loop.add_reader(self._bound, self._accept)

    def _accept(self) -> None:
        for _ in range(_BURST):
            try:
                client, _ = self._bound.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_FILES:
                    raise
                log.error("connections are not accepted for a moment", reason=error.strerror)
                self._loop.remove_reader(self._bound)
                self._pause = self._loop.call_later(_PAUSE_S, self._listen)
                return
            client.setblocking(False)
            if len(self._silent) + len(self._tasks) >= self._most:
                log.warning("too many connections", limit=self._most)
                client.close()
            elif not self._look(client):
                self._silent[client] = self._loop.call_later(
                    HANDSHAKE_TIMEOUT_S, self._give_up, client
                )
                self._loop.add_reader(client, self._look_again, client)

    def _look(self, client: socket.socket) -> bool:
        """Send it where it belongs; False while it has said nothing."""
        try:
            first = client.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            first = b""
        if not first:
            client.close()
            return True
        task = self._loop.create_task(self._hand_over(client, is_tls=first == _HANDSHAKE))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _look_again(self, client: socket.socket) -> None:
        self._loop.remove_reader(client)
        if self._look(client):
            self._silent.pop(client).cancel()
        else:
            self._loop.add_reader(client, self._look_again, client)

    def _forget(self, client: socket.socket) -> None:
        self._loop.remove_reader(client)
        self._silent.pop(client).cancel()

    def _give_up(self, client: socket.socket) -> None:
        self._forget(client)
        client.close()

    async def _hand_over(self, client: socket.socket, *, is_tls: bool) -> None:
        try:
            if is_tls:
                await self._loop.connect_accepted_socket(
                    self._connect,
                    client,
                    ssl=self._context,
                    ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                )
            else:
                await self._loop.connect_accepted_socket(self._connect_plain, client)
        except (OSError, asyncio.CancelledError, TimeoutError) as error:
            # Scanners, probes, clients that do not trust our certificate.
            log.debug("no TLS came about", reason=str(error) or type(error).__name__)
            client.close()
