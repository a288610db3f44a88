"""One job's request, taken apart only as far as somebody asks.

Most handlers look at the body and never at a header, so headers stay one
string until `headers` is read.  The layout is drawn in `wire/payloads.py`.
A large body is copied out of its sender's arena here, once.
"""

from __future__ import annotations

from typing import Any, Final

from stoker.errors import ProtocolError
from stoker.wire import packing
from stoker.wire.arena_reader import ArenaReader
from stoker.wire.frames import FRONTEND_ID_BYTES
from stoker.wire.node_calls import PartKind
from stoker.wire.payloads import (
    FIRST_PARAMETER,
    read_descriptor,
    split_header_block,
    unpack_answers,
)
from stoker.worker.any_case import AnyCase

#: The one parameter of a request that is no form.
_WHOLE_BODY: Final = "body"


class Headers(AnyCase):
    """Request headers as handlers of the torchserve contract expect them.

    Listed in the client's spelling, and json-able.  Values are str, except
    that every parameter has an entry `{"content-type": ...}` under its own name
    (contracts/torchserve.md 2.5).
    """

    def __reduce__(self) -> tuple[type[Headers], tuple[list[tuple[str, Any]]]]:
        return Headers, (list(self.items()),)


def _node_request(fields: Any) -> tuple[bytes, list[Any]]:
    """A node's call of a workflow as (whose arena it speaks of, fields of a request payload).

    Raises:
        ProtocolError: It is not a node's call either.
    """
    if type(fields) is not list or list(map(type, fields[:3])) != [bytes, str, bytes]:
        raise ProtocolError("not a request payload")
    frontend_id, request_id, block, *flat = fields
    if len(flat) % 3:
        raise ProtocolError("a node's payload is cut off")
    made: list[Any] = [request_id, block]
    for name, kind, source in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
        if kind == PartKind.INPUT:
            given = packing.unpack(source)
            if type(given) is not list or len(given) % 3:
                raise ProtocolError("a node's payload has a wrong input")
            if name:
                given[::3] = [f"{name}{own}" for own in given[::3]]
            made += given
        elif kind == PartKind.TEXT:
            made += (name, "", source.encode())
        else:
            content_type, body = _answer_in(source)
            if kind != PartKind.TYPED_ANSWER:
                content_type = ""
            elif name == _WHOLE_BODY:
                made[1] = _with_type(made[1], content_type)
            made += (name, content_type, body)
    return frontend_id, made


def _with_type(block: bytes, content_type: str) -> bytes:
    """The headers of a request whose whole body is another node's answer."""
    texts = split_header_block(block)
    pairs = zip(texts[::2], texts[1::2], strict=True)
    kept = [text for pair in pairs if pair[0].lower() != "content-type" for text in pair]
    if content_type:
        kept += ("content-type", content_type.replace("\n", " "))
    return "\n".join(kept).encode()


def _answer_in(source: Any) -> tuple[str, bytes]:
    """Content type and body of another node's answer, which may have come in pieces."""
    frames = source if type(source) is list else [source]
    answers = [answer for frame in frames for answer in unpack_answers(frame)]
    if not answers:
        raise ProtocolError("a node's payload has an empty source")
    body = answers[0].body if len(answers) == 1 else b"".join([each.body for each in answers])
    return answers[0].content_type or "", body


class Request:
    """What one client sent: an id, headers, and named parameters."""

    __slots__ = ("_fields", "_headers", "request_id")

    def __init__(
        self, payload: bytes, job_id: bytes = b"", arena: ArenaReader | None = None
    ) -> None:
        """Take the payload apart and fetch what lies elsewhere.

        Raises:
            ProtocolError: The bytes are not a request payload.
            Cancelled: A body is not in the arena any more: the client left.
        """
        fields = packing.unpack(payload)
        if (
            type(fields) is not list
            or (len(fields) - FIRST_PARAMETER) % 3
            or len(fields) < FIRST_PARAMETER
            or type(fields[0]) is not str
            or type(fields[1]) is not bytes
        ):
            job_id, fields = _node_request(fields)
        for i in range(FIRST_PARAMETER + 2, len(fields), 3):
            if type(fields[i]) is list:
                if arena is None:
                    raise ProtocolError("a body in an arena that is not ours")
                fields[i] = arena.read(job_id[:FRONTEND_ID_BYTES], read_descriptor(fields[i]))
        self.request_id: str = fields[0]
        self._fields: list[Any] = fields
        self._headers: Headers | None = None

    def rename(self, request_id: str) -> None:
        """Let the handler know it by another id."""
        self._fields[0] = self.request_id = request_id

    @property
    def has_parameters(self) -> bool:
        return len(self._fields) > FIRST_PARAMETER

    def continued(self) -> Request:
        """The same request as it comes at every step but its first: without parameters (8.7)."""
        request = object.__new__(Request)
        request.request_id = self.request_id
        request._fields = self._fields[:FIRST_PARAMETER]
        request._headers = None
        return request

    def pack(self) -> bytes:
        """A payload of the same request, with every body in it."""
        return packing.pack(self._fields)

    @property
    def header_texts(self) -> list[str]:
        """name, value, name, value ..., as they were sent.

        Raises:
            ProtocolError: They are not headers.
        """
        return split_header_block(self._fields[1])

    def add_headers(self, added: dict[str, str]) -> None:
        """Stronger than the client's of the same name; whoever gets the request packed has them."""
        block, self._headers = self._fields[1], None
        tail = "\n".join(text for item in added.items() for text in item).encode()
        self._fields[1] = b"%b\n%b" % (block, tail) if block else tail

    def parameters(self) -> list[tuple[str, str, bytes | bytearray]]:
        """(name, content type, body) in the order they were sent; a bytearray is the caller's."""
        fields = self._fields
        if len(fields) == FIRST_PARAMETER + 3:  # a whole body, as almost always
            return [(fields[2], fields[3], fields[4])]
        return [
            (fields[i], fields[i + 1], fields[i + 2])
            for i in range(FIRST_PARAMETER, len(fields), 3)
        ]

    @property
    def headers(self) -> Headers:
        headers = self._headers
        if headers is None:
            headers = self._headers = Headers(
                (name, {"content-type": kind}) for name, kind, _ in self.parameters()
            )
            texts = split_header_block(self._fields[1])
            for i in range(0, len(texts), 2):
                headers[texts[i]] = texts[i + 1]
        return headers
