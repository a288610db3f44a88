"""What ASGI calls things, and the scope of a request.

Source: contracts/torchserve.md 1.2 for what becomes of a path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import httptools

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
AsgiApp = Callable[..., Awaitable[None]]

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


def request_scope(
    method: bytes,
    url: bytes,
    version: str,
    lower_headers: list[tuple[bytes, bytes]],
    transport: asyncio.BaseTransport,
) -> Scope:
    """The scope of a request with this target, whatever the form of the target."""
    raw_path, _, query = url.partition(b"?")
    if not raw_path.startswith(b"/"):
        raw_path, query = _split_absolute(url)
    decoded = unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path
    path = decoded.decode("utf-8", "replace")
    if path[-1:] == "/":
        path = path.rstrip("/") or "/"
    if not query.isascii():
        query = query.decode("utf-8", "replace").encode()
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": version,
        "method": method.decode("ascii"),
        "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": lower_headers,
        "client": _client(transport),
        "server": _server(transport),
    }


def _client(transport: asyncio.BaseTransport) -> tuple[str, int] | None:
    name = transport.get_extra_info("peername")
    return (name[0], name[1]) if isinstance(name, tuple) else None


def _server(transport: asyncio.BaseTransport) -> tuple[str, int | None] | None:
    name = transport.get_extra_info("sockname")
    if isinstance(name, tuple):
        return name[0], name[1]
    # Of a Unix socket it is a path.
    return (name, None) if name else None


def _split_absolute(url: bytes) -> tuple[bytes, bytes]:
    """Path and query of `http://host/path`; anything else is a path nobody serves."""
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        return url, b""
    return parsed.path or b"/", parsed.query or b""
