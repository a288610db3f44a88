"""Where a listener listens: `http://HOST[:PORT]`, `https://...` or `unix:/path`.

Source: contracts/torchserve.md 1.1.  Beyond the peer, an IPv6 host may stand
in brackets, and port 0 asks for any free one.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from stoker.errors import SettingsError

#: Ports where an address names none: (http, https) per listener.
DEFAULT_PORTS: Final = {
    "inference": (80, 443),
    "management": (8081, 8444),
    "metrics": (8082, 8445),
}
_TCP: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.%]+\]|[^:^/\[\]\s]+)(:(?P<port>[0-9]+))?/?",
    re.IGNORECASE,
)
_UNIX: Final = re.compile(r"unix:(?P<path>/[^\0]+)", re.IGNORECASE)
#: The kernel's limit on a socket's path, without the closing zero byte.
MAX_UNIX_PATH_BYTES: Final = 107


@dataclass(frozen=True, slots=True)
class Address:
    """One listener's address; exactly one of `host` and `path` is not empty."""

    scheme: str  # "http", "https" or "unix"
    host: str = ""  # IPv6 without its brackets
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.path}"
        return f"{self.scheme}://{self.netloc}"

    @property
    def is_unix(self) -> bool:
        return self.scheme == "unix"

    @property
    def is_tls(self) -> bool:
        return self.scheme == "https"

    @property
    def netloc(self) -> str:
        """`HOST:PORT`, brackets and all."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def bind(self) -> str:
        """As gunicorn wants it: `HOST:PORT` or `unix:/path`."""
        return str(self) if self.is_unix else self.netloc

    @property
    def is_local(self) -> bool:
        """Only this host can reach it."""
        if self.is_unix or self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False  # a name may resolve to anything


def parse_address(text: str, listener: str = "inference") -> Address:
    """Read an address, or raise SettingsError with the peer's text.

    Args:
        listener: Decides the port of an address that names none.
    """
    if match := _UNIX.fullmatch(text):
        if len(match["path"].encode()) > MAX_UNIX_PATH_BYTES:
            raise SettingsError(f"Invalid binding address: {text}")
        return Address("unix", path=match["path"])
    match = _TCP.fullmatch(text)
    if match is None:
        raise SettingsError(f"Invalid binding address: {text}")
    scheme, host = match["scheme"].lower(), match["host"]
    if host.startswith("["):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise SettingsError(f"Invalid binding address: {text}") from None
    if match["port"] is None:
        return Address(scheme, host, DEFAULT_PORTS[listener][scheme == "https"])
    # The peer refuses 65535 as well.
    if len(match["port"]) > 5 or int(match["port"]) >= 65535:
        raise SettingsError(f"Invalid port number: {match['port']}")
    return Address(scheme, host, int(match["port"]))
