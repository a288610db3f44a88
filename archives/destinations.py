"""Which addresses a download may really lead to.

`allowed_urls` judges names; what a name stands for is decided by whoever
answers for it, and may differ from one moment to the next.  So the address of
the connection itself is looked at, before anything is sent over it.

Never asked: this network segment's own services (link-local, where clouds keep
their credentials), nobody and everybody.  This host is asked only by a URL that
says so.  Private networks are where model archives live, so they are fine.

Source: contracts/torchserve.md 11 (CVE-2023-43654).
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Where clouds hand out credentials, beside the link-local addresses.
_METADATA: Final = frozenset(
    (ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200"))
)


class ForbiddenDestination(Exception):
    """The name leads to an address that no archive comes from."""


def is_permitted(host: str, address: str) -> bool:
    """May a URL of this host be asked for at this IP address?"""
    ip = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip in _METADATA:
        return False
    return not ip.is_loopback or _means_this_host(host)


def _means_this_host(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return _unwrapped(ipaddress.ip_address(host.strip("[]"))).is_loopback
    except ValueError:
        return False


def _unwrapped(ip: _Ip) -> _Ip:
    """::ffff:127.0.0.1 is 127.0.0.1."""
    return getattr(ip, "ipv4_mapped", None) or ip


def open_pools(count: int) -> PoolManager:
    """A PoolManager whose connections lead to permitted places only."""
    pools = PoolManager(num_pools=count, retries=False)
    pools.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return pools


def _checked(connected: socket.socket, host: str) -> socket.socket:
    address = connected.getpeername()[0]
    if not is_permitted(host, address):
        connected.close()
        raise ForbiddenDestination(f"{host} leads to {address}")
    return connected


class _Http(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn(), self.host)


class _Https(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn(), self.host)


class _HttpPool(HTTPConnectionPool):
    ConnectionCls: Any = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls: Any = _Https
