"""Workflows on the wire: what the supervisor sees of a run's request and of nodes' answers.

    A run's request is an ordinary request payload (`payloads.py`), cut into three:
        request_id | header block | input
    where the input is [name | content_type | body]* as an array of its own, whose bytes
    are those of the payload

    node payload (supervisor -> worker): one node's call in a run of a workflow
        frontend_id | request_id | header block | [name | PartKind | source]*
    where a source is the input (its parameters keep their names, behind `name`), the
    answer frame of another node, a list of such frames (an answer that came in pieces),
    or a text of the workflow's own; `frontend_id` says whose arena the input's bodies lie in

A node's answer travels on as it is.  All the supervisor reads of such a frame is its
head, at fixed places: 0x97 0xC4 0x10, the job id, and one byte that is the AnswerKind.

An answer frame (`payloads.py`) that is not an error is never taken apart on the way: not
by the supervisor, which may look only where this file looks, and which imports nothing
that opens a file.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from stoker.errors import ProtocolError, StokerError, from_wire
from stoker.wire import packing
from stoker.wire.frames import JOB_ID_BYTES, AnswerKind

#: Which node of a workflow gave an answer that is no success.
NODE_HEADER: Final = "x-stoker-node"
_KINDS: Final[dict[int, AnswerKind]] = {kind.value: kind for kind in AnswerKind}


class WorkflowRequest(NamedTuple):
    """What a run is about; `block` and `parameters` are opaque to the supervisor."""

    request_id: str
    block: bytes
    parameters: bytes


def split_request(payload: bytes) -> WorkflowRequest:
    """Cut a request payload in three, of which the parameters are not looked at.

    Raises:
        ProtocolError: The bytes are not a request payload.
    """
    (request_id, block), rest = packing.split_head(payload, 2)
    if type(request_id) is not str or type(block) is not bytes:
        raise ProtocolError("not a request payload")
    return WorkflowRequest(request_id, block, rest)


class PartKind(enum.IntEnum):
    """What one input of a node's call is."""

    ANSWER = 0
    #: With its content type.
    TYPED_ANSWER = 1
    INPUT = 2
    TEXT = 3


class NodePart(NamedTuple):
    """One input of a node's call; see the picture of a node payload."""

    name: str
    kind: int
    source: bytes | list[bytes] | str


def pack_node_request(
    frontend_id: bytes, request: WorkflowRequest, parts: Sequence[NodePart]
) -> bytes:
    """What a worker gets for one node's call; `worker/request.py` reads it."""
    fields: list[Any] = [frontend_id, request.request_id, request.block]
    for part in parts:
        fields += part
    return packing.pack(fields)


#: How a frame begins that is one row: seven fields, the first of them a job id.
_ROW_HEAD: Final = b"\x97\xc4" + bytes([JOB_ID_BYTES])
_KIND_AT: Final = len(_ROW_HEAD) + JOB_ID_BYTES


def answer_kind(frame: bytes, job_id: bytes) -> AnswerKind:
    """What sort of answer a frame of one row is, without taking it apart.

    Raises:
        ProtocolError: It is not one row, or not for this job.
    """
    kind = _KINDS.get(frame[_KIND_AT]) if len(frame) > _KIND_AT else None
    if kind is None or not frame.startswith(_ROW_HEAD + job_id):
        raise ProtocolError("not an answer of this job")
    return kind


def readdress(frame: bytes, job_id: bytes) -> bytes:
    """The same row for another job; `answer_kind` has looked at it."""
    return b"".join((_ROW_HEAD, job_id, memoryview(frame)[_KIND_AT:]))


def answer_status(frame: bytes) -> int:
    """The HTTP status of an answer; `answer_kind` has looked at it.

    Raises:
        ProtocolError: It has none.
    """
    tag, *more = frame[_KIND_AT + 1 : _KIND_AT + 4] or b"\xff"
    if tag < 0x80:
        return tag
    if tag == 0xCC and more:
        return more[0]
    if tag == 0xCD and len(more) == 2:
        return int.from_bytes(more, "big")
    raise ProtocolError("an answer has a wrong field")


def readdress_failure(frame: bytes, job_id: bytes, node: str) -> bytes:
    """An answer that says that something went wrong, for another job, and at which node.

    Raises:
        ProtocolError: It is no answer frame.
    """
    fields = packing.unpack(frame)
    if type(fields) is not list or len(fields) != 7 or type(fields[5]) is not list:
        raise ProtocolError("not an answer frame")
    fields[0] = job_id
    fields[5] += (NODE_HEADER, node)
    return packing.pack(fields)


def pack_parts(job_id: bytes, named: Sequence[tuple[str, bytes]]) -> bytes:
    """An answer frame of several nodes' answer frames."""
    fields = [field for pair in named for field in pair]
    return packing.pack([job_id, AnswerKind.PARTS.value, 200, "", None, [], packing.pack(fields)])


def read_error(frame: bytes) -> StokerError:
    """The error in an answer that is one.  Raises ProtocolError if it cannot be read."""
    fields = packing.unpack(frame)
    if type(fields) is not list or len(fields) != 7:
        raise ProtocolError("not an answer frame")
    code, message, packed = fields[3], fields[4], fields[6]
    details = packing.unpack(packed) if type(packed) is bytes else None
    if type(code) is not str or type(message) is not str or type(details) is not dict:
        raise ProtocolError("an answer has a wrong error")
    if not all(type(key) is str for key in details):
        raise ProtocolError("an answer has a wrong error")
    return from_wire(code, message, details)
