"""What a request and its answers look like inside the opaque bytes.

Only the frontend and the worker read these; the supervisor forwards them.

    request payload
        request_id | header block | [name | content_type | body]*
    where the header block is UTF-8 text, "name LF value LF name LF value ...", and
    where a large body is in the sender's arena (`arena.py`) and instead of it stands
        [segment | offset | length | generation]

    answer frame (one frontend's share of one batch's progress), repeated rows of
        job_id | AnswerKind | status | reason | content_type? | headers[k, v, ...] | body
    where in place of a body that is lent (`lent_bodies.py`) stands
        [offset | length]
    and where for AnswerKind.ERROR
        status = 0, reason = error code, content_type = message,
        headers = [], body = packed details{}

Header names keep the client's spelling if the HTTP layer offers it.  A
parameter is one part of a form, or the whole body under the name `body`; its
content type is "" when the client gave none (contracts/torchserve.md 2.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from stoker.errors import ProtocolError, StokerError, SupervisorUnavailable, from_wire
from stoker.wire import packing
from stoker.wire.arena_layout import Descriptor
from stoker.wire.frames import JOB_ID_BYTES
from stoker.wire.frames import AnswerKind as AnswerKind

#: How many workers had a request, among the headers of its answer; said only of
#: more than one.
ATTEMPTS_HEADER: Final = "x-stoker-attempts"
#: What a question about adapters is for.  No client can send it: a header's name has no colon.
ADAPTERS_HEADER: Final = "stoker: adapters"
#: Three digits are what HTTP has room for.
MAX_STATUS: Final = 999
_TEXT: Final = {str}
#: Where the parameters of a request payload begin.
FIRST_PARAMETER: Final = 2


class Parameter(NamedTuple):
    name: str
    content_type: str
    body: bytes | Descriptor


class RequestPayload(NamedTuple):
    request_id: str
    headers: list[tuple[str, str]]
    parameters: list[Parameter]


def header_block(raw: Sequence[tuple[bytes, bytes]], added: Sequence[tuple[str, str]]) -> bytes:
    """All headers as one string: most handlers never look at them, so nobody takes them apart.

    Args:
        raw: As they came, in HTTP's Latin-1.
        added: By the server; stronger than the client's of the same name.
    """
    block = b"\n".join(chain.from_iterable(raw))
    if not block.isascii():
        block = block.decode("latin-1").encode()
    if raw and block.count(b"\n") >= 2 * len(raw):
        parts = [part.replace(b"\n", b" ") for part in chain.from_iterable(raw)]
        block = b"\n".join(parts).decode("latin-1").encode()
    if not added:
        return block
    text = "\n".join(chain.from_iterable(added))
    if text.count("\n") >= 2 * len(added):
        text = "\n".join([part.replace("\n", " ") for part in chain.from_iterable(added)])
    tail = text.encode("utf-8", "replace")
    return b"%b\n%b" % (block, tail) if raw else tail


def split_header_block(block: bytes) -> list[str]:
    """name, value, name, value ...  Raises ProtocolError if it is not such a block."""
    if not block:
        return []
    try:
        texts = block.decode().split("\n")
    except UnicodeDecodeError:
        raise ProtocolError("a request payload has a wrong header") from None
    if len(texts) % 2:
        raise ProtocolError("a request payload has a wrong header")
    return texts


def pack_request(request_id: str, block: bytes, parameters: Sequence[Parameter]) -> bytes:
    """`block` comes from `header_block`."""
    fields: list[Any] = [request_id, block]
    for parameter in parameters:
        fields += parameter
    return packing.pack(fields)


def unpack_request(payload: bytes) -> RequestPayload:
    """Raises ProtocolError if the bytes are not a request payload."""
    fields = packing.unpack(payload)
    if type(fields) is not list or len(fields) < 2:
        raise ProtocolError("not a request payload")
    request_id, block = fields[0], fields[1]
    if type(request_id) is not str or type(block) is not bytes:
        raise ProtocolError("not a request payload")
    if (len(fields) - FIRST_PARAMETER) % 3:
        raise ProtocolError("a request payload is cut off")
    texts = split_header_block(block)
    headers = list(zip(texts[::2], texts[1::2], strict=True))
    parameters = []
    for i in range(FIRST_PARAMETER, len(fields), 3):
        name, content_type, body = fields[i : i + 3]
        if type(body) is list:
            body = read_descriptor(body)
        elif type(body) is not bytes:
            raise ProtocolError("a request payload has a wrong parameter")
        if type(name) is not str or type(content_type) is not str:
            raise ProtocolError("a request payload has a wrong parameter")
        parameters.append(Parameter(name, content_type, body))
    return RequestPayload(request_id, headers, parameters)


def read_headers(payload: bytes) -> list[str]:
    """Only the headers, also of a node's payload: name, value, name, value ...

    Raises:
        ProtocolError: The bytes are neither.
    """
    first, block = packing.unpack_head(payload, FIRST_PARAMETER)
    if type(first) is bytes:  # a node's: whose arena it speaks of comes first
        block = packing.unpack_head(payload, FIRST_PARAMETER + 1)[-1]
    if type(block) is not bytes:
        raise ProtocolError("not a request payload")
    return split_header_block(block)


def read_descriptor(fields: list[Any]) -> Descriptor:
    """What stands in place of a body.  Raises ProtocolError if it is anything else."""
    if len(fields) != len(Descriptor._fields) or not all(
        type(field) is int and field >= 0 for field in fields
    ):
        raise ProtocolError("a request payload has a wrong descriptor")
    return Descriptor(*fields)


class Answer(NamedTuple):
    """One item's answer or piece; `error` is set for AnswerKind.ERROR alone."""

    job_id: bytes
    kind: AnswerKind
    status: int
    reason: str
    content_type: str | None
    headers: list[tuple[str, str]]
    body: bytes
    error: StokerError | None = None


def answer_row(answer: Answer) -> list[Any]:
    """The seven fields of one row; `pack_answers` joins rows to a frame."""
    if answer.error is not None:
        error = answer.error
        details = packing.pack(error.details)
        return [answer.job_id, AnswerKind.ERROR.value, 0, error.code, error.message, [], details]
    flat = [text for header in answer.headers for text in header]
    return [
        answer.job_id,
        answer.kind.value,
        answer.status,
        answer.reason,
        answer.content_type,
        flat,
        answer.body,
    ]


def pack_answers(answers: Sequence[Answer]) -> bytes:
    fields: list[Any] = []
    for answer in answers:
        fields += answer_row(answer)
    return packing.pack(fields)


_KINDS: Final[dict[int, AnswerKind]] = {kind.value: kind for kind in AnswerKind}
#: A record out of a row that has been checked; its own constructor is Python code.
_new: Final = tuple.__new__


def unpack_answers(frame: bytes, file: memoryview | None = None) -> list[Answer]:
    """Raises ProtocolError if the bytes are not an answer frame.

    The writer is a worker, where user code runs: every field is checked, so
    that a wrong one cannot surface later in the HTTP layer.

    Args:
        file: Where bodies are copied from that were lent along with the frame.  One that
            cannot be had makes an error of its answer, so that its request ends.
    """
    fields = packing.unpack(frame)
    if type(fields) is not list or len(fields) % 7:
        raise ProtocolError("not an answer frame")
    answers = []
    for i in range(0, len(fields), 7):
        job_id, code, status, reason, content_type, flat, body = fields[i : i + 7]
        lost = None
        if type(body) is list:
            body = _borrow(body, file)
            if body is None:
                body, lost = b"", SupervisorUnavailable("The answer was lost; ask again.")
        kind = _KINDS.get(code) if type(code) is int else None
        if (
            kind is None
            or type(job_id) is not bytes
            or len(job_id) != JOB_ID_BYTES
            or type(status) is not int
            or not 0 <= status <= MAX_STATUS
            or type(reason) is not str
            or (content_type is not None and type(content_type) is not str)
            or type(flat) is not list
            or len(flat) % 2
            or type(body) is not bytes
        ):
            raise ProtocolError("an answer has a wrong field")
        if lost is not None:
            answers.append(Answer(job_id, AnswerKind.ERROR, 0, "", None, [], b"", lost))
            continue
        if kind is AnswerKind.ERROR:
            answers.append(_error(job_id, reason, content_type, body))
            continue
        headers: list[tuple[str, str]] = []
        if flat:
            if not set(map(type, flat)) <= _TEXT:
                raise ProtocolError("an answer has a wrong header")
            headers = list(zip(flat[::2], flat[1::2], strict=True))
        row = (job_id, kind, status, reason, content_type, headers, body, None)
        answers.append(_new(Answer, row))
    return answers


def _borrow(place: list[Any], file: memoryview | None) -> bytes | None:
    """None: there is no such body."""
    if len(place) != 2 or not all(type(number) is int and number >= 0 for number in place):
        raise ProtocolError("an answer has a wrong field")
    offset, length = place
    if file is None or offset + length > len(file):
        return None
    return bytes(file[offset : offset + length])


def _error(job_id: bytes, code: str, message: str | None, packed: bytes) -> Answer:
    details = packing.unpack(packed)
    if message is None or type(details) is not dict:
        raise ProtocolError("an answer has a wrong error")
    if not all(type(key) is str for key in details):
        raise ProtocolError("an answer has a wrong error")
    error = from_wire(code, message, details)
    return Answer(job_id, AnswerKind.ERROR, 0, "", None, [], b"", error)


def unpack_parts(body: bytes) -> list[tuple[str, bytes]]:
    """(node, body of its answer) in the body of AnswerKind.PARTS.  Raises ProtocolError."""
    fields = packing.unpack(body)
    if type(fields) is not list or len(fields) % 2:
        raise ProtocolError("not an answer in parts")
    named: list[tuple[str, bytes]] = []
    for name, frame in zip(fields[::2], fields[1::2], strict=True):
        if type(name) is not str or type(frame) is not bytes:
            raise ProtocolError("not an answer in parts")
        (answer,) = unpack_answers(frame)
        named.append((name, answer.body))
    return named
