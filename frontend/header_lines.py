"""Lines of an answer's head, safe to write whatever a handler has put into them."""

from __future__ import annotations

import re
from typing import Final

#: Framing is the server's: nobody above may set these.
FRAMING_NAMES: Final = frozenset(
    (b"connection", b"content-length", b"transfer-encoding", b"keep-alive", b"x-request-id")
)
#: What no line of a head may hold.
CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def header_line(name: bytes, value: bytes) -> bytes:
    """`name: value` with nothing in it that could end the line; b"" for an impossible name."""
    if not _NAME.fullmatch(name):
        return b""
    if CONTROL.search(value):
        value = CONTROL.sub(b" ", value)
    return b"%b: %b\r\n" % (name, value)
