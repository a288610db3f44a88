"""The supervisor's end of `stream.py`: many peers on one loop, none of whom is trusted.

A connection that nobody vouched for (`admit`) is a stranger: it may say one
short thing, soon, and there is room for a few of them only.  Output that a
peer does not read is kept up to a bound; a peer that reaches it is stuck.

The kernel's readiness is a level, not an edge: what one look leaves behind
brings the next.  So one `recv` per look is enough.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Final

from stoker.clock import Clock
from stoker.errors import ProtocolError
from stoker.logs import get_logger
from stoker.wire.limits import MAX_FRAME_BYTES
from stoker.wire.stream import (
    LENGTH_BYTES,
    FrameReader,
    HasFileno,
    PeerGone,
    ancillary,
    new_buffer,
    pieces,
    socket_path,
    widen,
)

log = get_logger("wire")

#: A stranger's frame, its first: a hello takes less than a hundred bytes.
MAX_HELLO_BYTES: Final = 4096
HELLO_DEADLINE_S: Final = 15.0
#: One more, and the oldest goes.  Who is honest says hello right after it has
#: connected; but hundreds of workers may start at once on a busy machine.
MAX_STRANGERS: Final = 512
#: Connections waiting to be accepted; the kernel's own limit may be lower.
BACKLOG: Final = 1024
#: Connections accepted in one go before others get their turn.
ACCEPT_LIMIT: Final = 64
#: Without a free descriptor the listening socket would wake us for ever.
ACCEPT_PAUSE_S: Final = 1.0

#: Frames that wait for a peer.  What it is sent is bounded by credit, so
#: reaching this means that it has not read for very long.
MAX_WAITING_FRAMES: Final = 65_536
#: Room for the largest frame in hand and the largest one behind it.
MAX_WAITING_BYTES: Final = 2 * MAX_FRAME_BYTES
#: Pieces handed to the kernel at once, and how often before others get their turn.
SEND_PIECES: Final = 64
SEND_LIMIT: Final = 16
#: Looks at a dead peer's socket; the kernel keeps less than that for it.
DRAIN_LIMIT: Final = 256

#: The rest of a piece that waits, and what goes with its first byte.
_Rest = tuple[memoryview, Sequence[HasFileno]]

_CREDENTIALS: Final = struct.Struct("3i")
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Connection:
    """One peer; compared by identity.

    Attributes:
        peer_pid: Who connected, in the kernel's word; None if it has no
            number in our pid namespace.
        is_open: Frames may still come from it.
        is_reachable: It may still be sent something.
        is_admitted: Somebody vouched for it.
    """

    __slots__ = (
        "_fd",
        "_loop",
        "_on_lost",
        "_socket",
        "_waiting",
        "_waiting_bytes",
        "is_admitted",
        "is_open",
        "is_reachable",
        "peer_pid",
        "reader",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        accepted: socket.socket,
        reader: FrameReader,
        peer_pid: int | None,
        on_lost: Callable[[Connection, str], None],
    ) -> None:
        self.peer_pid = peer_pid
        self.is_open = True
        self.is_reachable = True
        self.is_admitted = False
        self.reader = reader
        self._loop = loop
        self._socket = accepted
        self._fd = accepted.fileno()
        self._on_lost = on_lost
        self._waiting: deque[_Rest] = deque()
        self._waiting_bytes = 0

    def fileno(self) -> int:
        return self._fd

    def admit(self) -> None:
        """It is who it says: from now on it may send what it likes."""
        self.is_admitted = True
        self.reader.max_bytes = MAX_FRAME_BYTES

    def send(self, frame: bytes, handles: Sequence[HasFileno] = ()) -> bool:
        """Send now, or as soon as the peer reads; False, and reported lost: it never will.

        Args:
            handles: Open files of which copies go along.
        """
        if not self.is_reachable:
            return False
        parts = pieces(frame)
        if self._waiting:
            if (
                len(self._waiting) >= MAX_WAITING_FRAMES
                or self._waiting_bytes + len(frame) > MAX_WAITING_BYTES
            ):
                self._lose("it does not read")
                return False
            sent = 0
        else:
            try:
                # Python's `send` is cheaper than its `sendmsg`.
                if handles:
                    sent = self._socket.sendmsg(parts, ancillary(handles))
                elif len(parts) == 1:
                    sent = self._socket.send(parts[0])
                else:
                    sent = self._socket.sendmsg(parts)
                if sent >= len(frame) + LENGTH_BYTES:
                    return True
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._lose(str(error))
                return False
            self._loop.add_writer(self._fd, self._send_waiting)
        if handles and not sent:
            # They go with the first byte of a message in which there is nothing else.
            parts = (b"".join(parts),)
        else:
            handles = ()
        for part in parts:
            if sent < len(part):
                rest = memoryview(part)[sent:]
                self._waiting.append((rest, handles))
                self._waiting_bytes += len(rest)
            sent = max(0, sent - len(part))
        return True

    def _send_waiting(self) -> None:
        waiting = self._waiting
        try:
            for _ in range(SEND_LIMIT):
                sent = self._send_some()
                self._waiting_bytes -= sent
                while waiting and sent >= len(waiting[0][0]):
                    sent -= len(waiting.popleft()[0])
                if not waiting:
                    self._loop.remove_writer(self._fd)
                    return
                if sent:
                    waiting[0] = (waiting[0][0][sent:], ())
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose(str(error))

    def _send_some(self) -> int:
        """As many pieces as may go at once; one that open files go with goes alone."""
        part, handles = self._waiting[0]
        if handles:
            return self._socket.sendmsg((part,), ancillary(handles))
        some = islice(self._waiting, SEND_PIECES)
        return self._socket.sendmsg([part for part, _ in takewhile(_is_plain, some)])

    def _lose(self, reason: str) -> None:
        # What it said before may still be read.
        self.is_reachable = False
        self._forget_output()
        self._on_lost(self, reason)

    def _forget_output(self) -> None:
        if self._waiting:
            self._waiting.clear()
            self._waiting_bytes = 0
            self._loop.remove_writer(self._fd)

    def close(self) -> None:
        """Hang up; harmless when repeated."""
        if self.is_open:
            self.is_open = self.is_reachable = False
            self._forget_output()
            self._loop.remove_reader(self._fd)
            self._socket.close()

    def receive(self, take: Callable[[Connection, memoryview], None]) -> None:
        """One look: everything that a `recv` brings goes to `take`.

        Raises:
            BlockingIOError, PeerGone, ProtocolError: As `FrameReader.read`.
        """
        for frame in self.reader.read(self._socket):
            take(self, frame)
            if not self.is_open:
                return


class Acceptor:
    """A listening Unix socket and everybody who came through it.

    Args:
        address: `unix:/path`; whoever holds the directory's lock may take a
            path that a dead predecessor left.
        take: Called with every frame, which is good until it returns.
        on_turn: Called after every burst of frames, or of several peers' together.
        on_lost: Called with a peer that is out of reach, once or twice, and why.
        on_liar: Called with a peer whose bytes are not ours, and why; it is
            closed already.
        user: Another user that may connect, and its group; None for nobody but us.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        address: str,
        take: Callable[[Connection, memoryview], None],
        on_turn: Callable[[], None],
        on_lost: Callable[[Connection, str], None],
        on_liar: Callable[[Connection, str], None],
        user: tuple[int, int] | None = None,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._take = take
        self._on_turn = on_turn
        self._on_lost = on_lost
        self._on_liar = on_liar
        self._buffer = new_buffer()
        self._connections: set[Connection] = set()
        #: Who has not been admitted, oldest first, and when it must be.
        self._strangers: dict[Connection, float] = {}
        self._turned_away = 0
        self._speaker: Connection | None = None
        self._is_turn_due = False
        self._pause: asyncio.TimerHandle | None = None
        self._path = Path(socket_path(address))
        self._uids = {0, os.geteuid(), *(user[:1] if user is not None else ())}
        self._socket = _listen(self._path, None if user is None else user[1])
        loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Hang up on everybody and take the path away; harmless when repeated."""
        if self._socket.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._path.unlink(missing_ok=True)
        for connection in tuple(self._connections):
            self.drop(connection)

    def admit(self, connection: Connection) -> None:
        """Somebody vouches for it."""
        connection.admit()
        self._strangers.pop(connection, None)

    def drop(self, connection: Connection) -> None:
        """Hang up on one; nobody is told.  Harmless when repeated."""
        connection.close()
        self._connections.discard(connection)
        self._strangers.pop(connection, None)

    def drain(self, connection: Connection) -> None:
        """Take what a peer has said already, before an event that came another way is judged."""
        for _ in range(DRAIN_LIMIT):
            if not connection.is_open or not self._look(connection):
                return

    def pause(self, connection: Connection) -> None:
        """Let what it says gather in the kernel, until `resume` or `drain`."""
        if connection.is_open:
            self._loop.remove_reader(connection.fileno())

    def resume(self, connection: Connection) -> None:
        """Take what has gathered, in no turn of its own, and listen again; nothing if closed.

        All of it: large answers take several looks, and whoever pauses again at once would
        leave the rest lying.
        """
        if connection.is_open:
            self._loop.add_reader(connection.fileno(), self._read, connection)
            self.drain(connection)

    def sweep(self, now: float) -> None:
        """Part with strangers who have said nothing for too long; call about once a second."""
        while self._strangers:
            oldest, deadline = next(iter(self._strangers.items()))
            if deadline > now:
                break
            self._turn_away(oldest)
        if self._turned_away:
            log.warning("connections without a hello closed", count=self._turned_away)
            self._turned_away = 0

    def hear_strangers(self) -> None:
        """Let in whoever waits at the door, and take what those have said whom nobody admitted.

        For who has heard something another way that was said after it.
        """
        # All of them: the one that is meant may stand behind a crowd.
        self._let_in(BACKLOG)
        for connection in tuple(self._strangers):
            self._read(connection)

    # -- reading --------------------------------------------------------------

    def _read(self, connection: Connection) -> None:
        if not connection.is_open or not self._look(connection):
            return
        if connection is self._speaker:
            self._on_turn()
            return
        # Several speak: hear all who are ready now, so that what is decided
        # upon it leaves together.  For one alone that would only cost time.
        self._speaker = connection
        if not self._is_turn_due:
            self._is_turn_due = True
            self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._is_turn_due = False
        self._on_turn()

    def _look(self, connection: Connection) -> bool:
        """False when there was nothing."""
        try:
            connection.receive(self._take)
        except BlockingIOError:
            return False
        except PeerGone as error:
            self.drop(connection)
            if connection.is_admitted:
                self._on_lost(connection, str(error))
        except ProtocolError as error:
            self.drop(connection)
            self._on_liar(connection, error.message)
        return True

    # -- accepting ------------------------------------------------------------

    def _accept(self) -> None:
        self._let_in(ACCEPT_LIMIT)

    def _let_in(self, most: int) -> None:
        if self._pause is not None:
            return  # there is no descriptor for anybody, whoever asks
        for _ in range(most):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_DESCRIPTOR:
                    raise
                log.error("no connection accepted", reason=error.strerror)
                self._loop.remove_reader(self._socket.fileno())
                self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._accept_again)
                return
            self._welcome(accepted)

    def _accept_again(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _welcome(self, accepted: socket.socket) -> None:
        pid, uid, _ = _CREDENTIALS.unpack(
            accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid not in self._uids:
            accepted.close()
            self._turned_away += 1
            return
        accepted.setblocking(False)
        widen(accepted)
        reader = FrameReader(self._buffer, MAX_HELLO_BYTES)
        connection = Connection(self._loop, accepted, reader, pid or None, self._on_lost)
        self._connections.add(connection)
        self._strangers[connection] = self._clock.now() + HELLO_DEADLINE_S
        self._loop.add_reader(accepted.fileno(), self._read, connection)
        # What an honest one has said already saves it from the next line.
        self._read(connection)
        if len(self._strangers) > MAX_STRANGERS:
            self._turn_away(next(iter(self._strangers)))

    def _turn_away(self, connection: Connection) -> None:
        self.drop(connection)
        self._turned_away += 1


def _listen(path: Path, gid: int | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        os.chmod(path, 0o600 if gid is None else 0o660)
        if gid is not None:
            os.chown(path, -1, gid)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_plain(rest: _Rest) -> bool:
    return not rest[1]
