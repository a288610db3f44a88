"""An answer of ours that needs no application: made once, sent often.

Whoever is refused for want of room asks again, and there may be thousands of
them a second: nothing of the answer is worked out anew but the request id.

Source: contracts/torchserve.md 1.3-1.6.
"""

from __future__ import annotations

import http
from typing import Final

from stoker.errors import RequestTooLarge
from stoker.frontend.exchange import StandingHeaders
from stoker.frontend.problems import JSON_TYPE, Problem

_PHRASES: Final = {status.value: status.phrase.encode() for status in http.HTTPStatus}


class Refusal:
    """One problem as bytes; `code` is the error's."""

    __slots__ = ("_body_bytes", "_closing", "_head", "_keeping", "code", "status")

    def __init__(self, problem: Problem, code: str, body: bytes, standing: StandingHeaders) -> None:
        self.status = problem.status
        self.code = code
        self._body_bytes = len(body)
        retry = problem.retry_after_s
        head = (
            b"HTTP/1.1 %d %b\r\n" % (problem.status, _PHRASES.get(problem.status, b"")),
            b"content-type: %b\r\n" % JSON_TYPE.encode(),
            b"" if retry is None else b"retry-after: %d\r\n" % retry,
            b"x-request-id: ",
        )
        self._head = b"".join(head)
        rest = b"".join((b"\r\n", standing.fixed_head, *(line for _, line in standing.cors)))
        rest += b"content-length: %d\r\nconnection: " % len(body)
        self._closing = rest + b"close\r\n\r\n" + body
        self._keeping = rest + b"keep-alive\r\n\r\n" + body

    def render(self, request_id: str, *, closes: bool) -> bytes:
        return b"%b%b%b" % (
            self._head,
            request_id.encode(),
            self._closing if closes else self._keeping,
        )

    def head_of(self, rendered: bytes) -> bytes:
        """What HEAD gets of it."""
        return rendered[: len(rendered) - self._body_bytes]


class _TooLarge(Refusal):
    """The peer's answer to a large body has no body of its own, and no headers of ours."""

    __slots__ = ()

    def __init__(self) -> None:
        self.status = 413
        self.code = RequestTooLarge.code
        self._body_bytes = 0

    def render(self, request_id: str, *, closes: bool) -> bytes:
        return (
            b"HTTP/1.1 413 Request Entity Too Large\r\n"
            b"content-length: 0\r\nconnection: close\r\n\r\n"
        )


EMPTY_413: Final = _TooLarge()
