"""What a request and its answers look like inside the opaque bytes.

Only the frontend and the worker read these; the supervisor forwards them.

    request payload
        request_id | n headers | n * (name | value) | [name | content_type | body]*

    answer frame (one frontend's share of one batch's progress), repeated rows of
        job_id | AnswerKind | status | reason | content_type? | headers[k, v, ...] | body
    where for AnswerKind.ERROR
        status = 0, reason = error code, content_type = message,
        headers = [], body = packed details{}

Header names keep the client's spelling if the HTTP layer offers it.  A
parameter is one part of a form, or the whole body under the name `body`; its
content type is "" when the client gave none (contracts/torchserve.md 2.3).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

from stoker.errors import ProtocolError, StokerError, from_wire
from stoker.wire import codec


class Parameter(NamedTuple):
    name: str
    content_type: str
    body: bytes


class RequestPayload(NamedTuple):
    request_id: str
    headers: list[tuple[str, str]]
    parameters: list[Parameter]


def pack_request(
    request_id: str, headers: Sequence[tuple[str, str]], parameters: Sequence[Parameter]
) -> bytes:
    fields: list[Any] = [request_id, len(headers)]
    for header in headers:
        fields += header
    for parameter in parameters:
        fields += parameter
    return codec.pack(fields)


def unpack_request(payload: bytes) -> RequestPayload:
    """Raises ProtocolError if the bytes are not a request payload."""
    fields = codec.unpack(payload)
    try:
        request_id, count = fields[0], fields[1]
        end = 2 + 2 * count
        headers = [(fields[i], fields[i + 1]) for i in range(2, end, 2)]
        parameters = [Parameter(*fields[i : i + 3]) for i in range(end, len(fields), 3)]
    except (TypeError, IndexError, KeyError):
        raise ProtocolError("not a request payload") from None
    return RequestPayload(request_id, headers, parameters)


class AnswerKind(enum.IntEnum):
    #: The whole answer, or the last piece of a streamed one.
    FINAL = 0
    #: A piece of a streamed answer; status and headers count in the first only.
    CHUNK = 1
    ERROR = 2


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
        details = codec.pack(error.details)
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
    return codec.pack(fields)


def unpack_answers(frame: bytes) -> list[Answer]:
    """Raises ProtocolError if the bytes are not an answer frame."""
    fields = codec.unpack(frame)
    if type(fields) is not list or len(fields) % 7:
        raise ProtocolError("not an answer frame")
    answers = []
    try:
        for i in range(0, len(fields), 7):
            job_id, kind, status, reason, content_type, flat, body = fields[i : i + 7]
            if kind == AnswerKind.ERROR:
                error = from_wire(reason, content_type, codec.unpack(body))
                answers.append(Answer(job_id, AnswerKind.ERROR, 0, "", None, [], b"", error))
                continue
            headers = [(flat[k], flat[k + 1]) for k in range(0, len(flat), 2)]
            answers.append(
                Answer(job_id, AnswerKind(kind), status, reason, content_type, headers, body)
            )
    except (TypeError, IndexError, ValueError):
        raise ProtocolError("not an answer frame") from None
    return answers
