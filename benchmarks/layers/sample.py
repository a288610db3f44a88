"""A request's payload as the frontend packs it: 100 bytes, the headers of our driver."""

from __future__ import annotations

from stoker.wire.payloads import Parameter, header_block, pack_request

HEADERS = [(b"Host", b"127.0.0.1:8080"), (b"Content-Type", b"application/octet-stream")]
HEADERS.append((b"Content-Length", b"100"))


def payload() -> bytes:
    body = Parameter("body", "application/octet-stream", b"x" * 100)
    return pack_request("0" * 36, header_block(HEADERS, ()), [body])
