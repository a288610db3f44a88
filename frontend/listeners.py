"""Listeners: an address, what is served there, and in whose dialect.

Equal addresses share one listener that serves every role; port 0 is never
equal to anything, because each asks for a port of its own.

Source: contracts/torchserve.md 1.1, 1.2.
"""

from __future__ import annotations

import enum
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from stoker.addresses import Address
from stoker.errors import StokerError
from stoker.settings import Settings
from stoker.settings.listeners import DEFAULT_DIALECT, listener_names, listeners_of

BACKLOG: Final = 1024


class Role(enum.Enum):
    """What a listener is for."""

    INFERENCE = "inference"
    MANAGEMENT = "management"
    METRICS = "metrics"


class BindFailed(StokerError):
    """An address cannot be listened on.  details: address, reason."""

    code = "bind_failed"


@dataclass(frozen=True, slots=True)
class Listener:
    """One address and the roles served there."""

    address: Address
    roles: tuple[Role, ...]
    dialect: str = DEFAULT_DIALECT


def plan_listeners(settings: Settings) -> list[Listener]:
    """The listeners these settings ask for, in their order, else inference first.

    Without `listeners`, on an address shared by inference and management `/metrics` is served as
    well, beside the separate metrics listener (1.1).
    """
    planned: list[Listener] = []
    for item in listeners_of(settings):
        address, roles = item.address, tuple(Role(api) for api in item.apis)
        for i, known in enumerate(planned):
            if known.address == address and (address.is_unix or address.port != 0):
                planned[i] = replace(known, roles=(*known.roles, *roles))
                break
        else:
            planned.append(Listener(address, roles, item.dialect))
    if settings.listeners:
        return planned
    first = planned[0]
    if settings.enable_metrics_api and {Role.INFERENCE, Role.MANAGEMENT} <= {*first.roles}:
        planned[0] = replace(first, roles=tuple(dict.fromkeys((*first.roles, Role.METRICS))))
    return planned


def open_socket(address: Address, unix_mode: int = 0o600) -> socket.socket:
    """Bind and listen.

    Args:
        unix_mode: Of a Unix socket's file: who may write may connect.

    Raises:
        BindFailed: With the peer's text.
    """
    try:
        return _open_unix(address.path, unix_mode) if address.is_unix else _open_tcp(address)
    except OSError as error:
        raise BindFailed(
            f"Failed to bind to address: {address}",
            address=str(address),
            reason=error.strerror or str(error),
        ) from None


def _open_tcp(address: Address) -> socket.socket:
    # Text goes through the codec for international names, which takes a megabyte.
    host = address.host.encode() if address.host.isascii() else address.host
    family, kind, protocol, _, where = socket.getaddrinfo(
        host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(where)
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def _open_unix(path: str, mode: int) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear_stale(path)
        # For the socket's file there is no moment when others may connect to it.
        mask = os.umask(0o177)
        try:
            opened.bind(path)
        finally:
            os.umask(mask)
        os.chmod(path, mode)
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def _clear_stale(path: str) -> None:
    """Remove a socket that nobody listens on; anything else stays and refuses the bind."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def actual_address(listener: Listener, bound: socket.socket) -> Address:
    """The listener's address with the port that the kernel chose."""
    if listener.address.is_unix:
        return listener.address
    return replace(listener.address, port=bound.getsockname()[1])


def addresses_by_role(
    listeners: Sequence[Listener], sockets: Sequence[socket.socket]
) -> dict[str, str]:
    """Where each role is served, also by dialect; see `listener_names`."""
    called = listener_names(
        [(listener.dialect, [role.value for role in listener.roles]) for listener in listeners]
    )
    return {
        name: str(actual_address(listener, bound))
        for listener, bound, names in zip(listeners, sockets, called, strict=True)
        for name in names
    }
