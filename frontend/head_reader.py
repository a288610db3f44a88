"""The head of a request: HTTP bytes in, a record out, limits before parsers.

One per connection.  The parser is llhttp's; it calls the rest of a request,
the body and its end, straight into the connection.

Source: contracts/torchserve.md 1.2, 1.6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import httptools

from stoker.errors import StokerError
from stoker.frontend.limits import Limits
from stoker.frontend.problems import MalformedHttp

#: A client's own deadline, in milliseconds, counted from the request's arrival.
TIMEOUT_HEADER: Final = b"x-request-timeout-ms"

#: Header fields that we look at ourselves.
_TOLD: Final = frozenset(
    (b"content-length", b"content-type", b"expect", b"x-request-id", TIMEOUT_HEADER)
)
#: " HTTP/1.1" and the blank before the target.
_LINE_OVERHEAD: Final = 10
#: The parser knows more of them.
_VERSIONS: Final = ("1.1", "1.0")
#: Heads shorter than this cannot have too many headers.
_FEW_BYTES: Final = 1024

Headers = list[tuple[bytes, bytes]]


class RequestHead(NamedTuple):
    """A request's head as the parser left it.

    Attributes:
        headers: As the client spelled and ordered them.
        content_type: Undecoded; None without one.
        patience: `x-request-timeout-ms` as sent; None without one.
    """

    method: bytes
    url: bytes
    version: str
    headers: Headers
    content_type: bytes | None = None
    patience: bytes | None = None


class HeadOwner(Protocol):
    """A connection, as its head reader needs it."""

    def on_head(self) -> None: ...
    def on_message_complete(self) -> None: ...
    def stop_parsing(self, error: StokerError) -> None: ...


class HeadReader:
    """Reads one head after the other.

    Attributes:
        is_open: A head has begun, or is expected first, and is not complete.
        is_in_message: Between the first byte of a head and the end of its body.
        length: Of the body, if the head tells it.
    """

    __slots__ = (
        "_begins",
        "_content_type",
        "_head_bytes",
        "_headers",
        "_limits",
        "_owner",
        "_parser",
        "_patience",
        "_unparsed_bytes",
        "expects_continue",
        "is_in_message",
        "is_open",
        "length",
        "method",
        "offered_id",
        "on_body",
        "on_message_complete",
        "url",
        "version",
    )

    def __init__(self, owner: HeadOwner, on_body: Callable[[bytes], None], limits: Limits) -> None:
        self._owner = owner
        self._limits = limits
        # The parser looks these up once, in us.
        self.on_body = on_body
        self.on_message_complete: Callable[[], None] = owner.on_message_complete
        self.is_open = True
        self.is_in_message = False
        self._begins = 0
        self._unparsed_bytes = 0
        self._clear()
        self._parser: Any = None
        self.renew()

    def _clear(self) -> None:
        self.method = b""
        self.url = b""
        self.version = ""
        self.length: int | None = None
        self.expects_continue = False
        self.offered_id: bytes | None = None
        self._headers: Headers = []
        self._head_bytes = 0
        self._content_type: bytes | None = None
        self._patience: bytes | None = None

    def renew(self) -> None:
        """A fresh parser, for a request whose rest the old one has not seen."""
        self._parser = httptools.HttpRequestParser(self)
        # Whoever said `Connection: close` may have more to say; we do not read it.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.is_in_message = False

    def close(self) -> None:
        """Let go of everybody who holds us."""
        self._parser = None
        del self.on_body, self.on_message_complete

    def feed(self, data: bytes | memoryview) -> bytes | memoryview:
        """Parse; return what must be parsed again.

        Raises:
            httptools.HttpParserError: Not HTTP, or somebody stopped the parser.
        """
        is_alone = not self.is_in_message
        self._begins = 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser leaves the body to the new protocol, but nothing here
            # is upgraded: let a fresh one read the request without the offer.
            self.renew()
            return self._without_upgrade() + data[upgrade.args[0] :]
        if self.is_open:
            self._watch_unparsed(len(data), is_alone)
        return b""

    def _watch_unparsed(self, size: int, is_alone: bool) -> None:
        """A header that never ends is not shown to `on_header`."""
        if self._begins == 0 or (self._begins == 1 and is_alone):
            self._unparsed_bytes += size
        else:
            # Nobody knows where it began; the next piece is all its own.
            self._unparsed_bytes = 0
        limits = self._limits
        if self._unparsed_bytes > limits.request_line_bytes + 2 * limits.header_bytes:
            self._owner.stop_parsing(MalformedHttp())

    def _without_upgrade(self) -> bytes:
        lines = [b"%b %b HTTP/1.1" % (self.method, self.url)]
        for name, value in self._headers:
            lowered = name.lower()
            if lowered == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                value = b", ".join(token for token in tokens if token.lower() != b"upgrade")
            if lowered != b"upgrade":
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join(lines) + b"\r\n\r\n"

    # -- the parser -----------------------------------------------------------

    def on_message_begin(self) -> None:
        self.is_open = self.is_in_message = True
        self._begins += 1
        self._clear()

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) + _LINE_OVERHEAD > self._limits.request_line_bytes:
            self._owner.stop_parsing(MalformedHttp())

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > _FEW_BYTES:
            limits = self._limits
            is_many = len(self._headers) >= limits.headers
            if is_many or self._head_bytes > limits.header_bytes:
                self._owner.stop_parsing(MalformedHttp())
        self._headers.append((name, value))
        lowered = name.lower()
        if lowered not in _TOLD:
            return
        if lowered == b"content-length":
            # The parser has checked the digits.
            self.length = int(value)
        elif lowered == b"content-type":
            self._content_type = value
        elif lowered == b"expect":
            self.expects_continue = value.lower() == b"100-continue"
        elif lowered == b"x-request-id":
            self.offered_id = value
        else:
            self._patience = value

    def on_headers_complete(self) -> None:
        parser = self._parser
        self.method = method = parser.get_method()
        if parser.should_upgrade():
            if method == b"CONNECT":
                self._owner.stop_parsing(MalformedHttp())
            return
        self.version = parser.get_http_version()
        is_long = len(method) + len(self.url) + _LINE_OVERHEAD > self._limits.request_line_bytes
        if is_long or self.version not in _VERSIONS:
            self._owner.stop_parsing(MalformedHttp())
        self.is_open = False
        self._owner.on_head()

    # -- what has been read ---------------------------------------------------

    @property
    def is_last(self) -> bool:
        """The client wants the connection closed after this request."""
        return self.version == "1.0" or not self._parser.should_keep_alive()

    @property
    def content_type(self) -> bytes | None:
        return self._content_type

    @property
    def headers(self) -> Headers:
        return self._headers

    def take(self) -> RequestHead:
        """The head; what follows the body of a chunked request is no part of it."""
        headers, self._headers = self._headers, []
        return RequestHead(
            self.method, self.url, self.version, headers, self._content_type, self._patience
        )
