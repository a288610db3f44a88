"""Opening the sockets between our processes safely.

Folder mode and lock keep strangers and second servers out, high-water marks
and MAXMSGSIZE keep peers bounded, mandatory routing makes an undeliverable
message an error that someone handles (design section 3).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

import zmq

from stoker.errors import SettingsError
from stoker.wire.codec import MAX_FRAME_BYTES

#: Messages a socket holds for a peer that does not read.  Admission keeps the
#: number of jobs far below; reaching it means the peer is stuck.
HIGH_WATER: Final = 65_536
#: ZMTP heartbeats notice a stopped process (SIGSTOP), which a dead one's
#: closed socket cannot.
HEARTBEAT_MS: Final = 5_000
HEARTBEAT_TIMEOUT_MS: Final = 30_000


class FolderInUse(SettingsError):
    """Another supervisor holds this runtime directory."""

    code = "runtime_dir_in_use"


def prepare_folder(folder: Path) -> None:
    """Make `folder` exist, ours, and closed to everybody else.

    Raises:
        SettingsError: It belongs to somebody else or is not a directory.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise SettingsError(
            f"runtime_dir {folder} is not a directory of ours; name another one.",
            setting="runtime_dir",
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        os.chmod(folder, 0o700)


class FolderLock:
    """An flock on the runtime directory: a second bind would steal an ipc path silently."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "supervisor.lock"
        self._fd = -1

    def acquire(self) -> None:
        """Raises FolderInUse when another process holds it."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise FolderInUse(
                    f"Another supervisor is running in {self._path.parent}; "
                    "stop it or give this one its own runtime_dir.",
                    setting="runtime_dir",
                ) from None
            raise
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def frontend_address(folder: Path) -> str:
    return _ipc(folder / "frontend.sock")


def worker_address(folder: Path) -> str:
    return _ipc(folder / "worker.sock")


def _ipc(path: Path) -> str:
    # sun_path holds 108 bytes including the NUL; zmq truncates silently.
    if len(os.fsencode(path)) > 100:
        raise SettingsError(
            f"runtime_dir is too long for a Unix socket: {path.parent}; name a shorter one.",
            setting="runtime_dir",
        )
    return f"ipc://{path}"


def remove_file(address: str) -> None:
    """Take away the file of a closed `ipc://` socket: zmq leaves it behind.

    Only for whoever holds the folder's lock; anybody else's file may be a
    successor's.
    """
    Path(address.removeprefix("ipc://")).unlink(missing_ok=True)


def bind_router(context: zmq.Context[zmq.Socket[bytes]], address: str) -> zmq.Socket[bytes]:
    """The supervisor's side: unknown or full peers raise instead of swallowing."""
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    # A restarted peer never re-uses an identity, so a second one is not ours.
    socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
    _common(socket)
    socket.bind(address)
    return socket


def connect_dealer(
    context: zmq.Context[zmq.Socket[bytes]], address: str, identity: bytes
) -> zmq.Socket[bytes]:
    """A frontend's or worker's side; sends nothing before the connection stands."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, 20)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    _common(socket)
    socket.connect(address)
    return socket


def _common(socket: zmq.Socket[bytes]) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)


#: Above this zmq's own thread may send from our buffer; below, copying is cheaper.
ZERO_COPY_BYTES: Final = 256 << 10


def is_worth_sharing(frame: bytes) -> bool:
    return len(frame) >= ZERO_COPY_BYTES
