"""Records to bytes and back, with every limit in one table.

Decoding trusts nobody: a frame that is truncated, deep, too large, of the
wrong types or simply not ours raises `ProtocolError`, and the caller drops
the peer.  Encoding re-uses one Packer per process (none of our processes
encodes from two threads).

Raises:
    ProtocolError: from every `decode_*`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgpack

from stoker.errors import ProtocolError
from stoker.wire import frames as f
from stoker.wire.frames import FRONTEND_ID_BYTES, JOB_ID_BYTES, Kind

T = TypeVar("T")

#: Limits of one frame.  A body is at most MAX_PAYLOAD_BYTES; what lies above
#: travels through the shared-memory arena or not at all.
MAX_FRAME_BYTES: Final = 1 << 30
MAX_PAYLOAD_BYTES: Final = 512 << 20
#: Payloads in one WORK, if there are several; the rest of the frame is for ids and deadlines.
MAX_WORK_BYTES: Final = MAX_FRAME_BYTES - (16 << 20)
#: Jobs in one WORK, if it has several batches; each takes up to three elements.
MAX_WORK_JOBS: Final = 1 << 16
MAX_TEXT_BYTES: Final = 1 << 20
MAX_ELEMENTS: Final = 1 << 18
MAX_MAP_ENTRIES: Final = 1 << 16
#: What is read of a payload by whoever wants only its headers.
HEAD_BYTES: Final = 256 << 10
#: Above this a frame's headers are walked before anything is built of it.
UNWALKED_BYTES: Final = 256 << 10

_packer: Final = msgpack.Packer(use_bin_type=True, autoreset=True)


def pack(value: Any) -> bytes:
    """Plain msgpack with our options; for payloads and frames alike."""
    packed: bytes = _packer.pack(value)
    return packed


def unpack(frame: bytes | memoryview) -> Any:
    """Plain msgpack under our limits.  Raises ProtocolError, nothing else."""
    size = len(frame)
    if size > UNWALKED_BYTES:
        _count_elements(frame)
    try:
        return msgpack.unpackb(
            frame,
            raw=False,
            strict_map_key=True,
            ext_hook=_refuse_ext,
            max_bin_len=MAX_PAYLOAD_BYTES,
            max_str_len=MAX_TEXT_BYTES,
            # msgpack makes room for as many elements as a header claims, and an
            # element takes a byte at least.
            max_array_len=min(MAX_ELEMENTS, size),
            max_map_len=MAX_MAP_ENTRIES,
            max_ext_len=0,
        )
    # msgpack raises ValueError, UnpackException, TypeError, RecursionError, ...
    except Exception as error:
        raise ProtocolError(f"not a frame of ours: {type(error).__name__}") from None


def unpack_head(frame: bytes, count: int) -> list[Any]:
    """The first `count` elements of an array, without the rest of it.

    Raises:
        ProtocolError: There are not so many within HEAD_BYTES, or they are no frame of ours.
    """
    unpacker = msgpack.Unpacker(
        raw=False, ext_hook=_refuse_ext, max_buffer_size=HEAD_BYTES, strict_map_key=True
    )
    try:
        unpacker.feed(frame[:HEAD_BYTES])
        if unpacker.read_array_header() < count:
            raise ValueError("too short")
        return [unpacker.unpack() for _ in range(count)]
    except Exception as error:
        raise ProtocolError(f"not a frame of ours: {type(error).__name__}") from None


def split_head(frame: bytes, count: int) -> tuple[list[Any], bytes]:
    """The first `count` elements of an array, and the others, unopened, as an array.

    Raises:
        ProtocolError: As `unpack_head`.
    """
    unpacker = msgpack.Unpacker(
        raw=False, ext_hook=_refuse_ext, max_buffer_size=HEAD_BYTES, strict_map_key=True
    )
    try:
        unpacker.feed(frame[:HEAD_BYTES])
        left = unpacker.read_array_header() - count
        if left < 0:
            raise ValueError("too short")
        head = [unpacker.unpack() for _ in range(count)]
        header: bytes = _packer.pack_array_header(left)
        _packer.reset()
    except Exception as error:
        raise ProtocolError(f"not a frame of ours: {type(error).__name__}") from None
    return head, b"".join((header, memoryview(frame)[unpacker.tell() :]))


def _refuse_ext(code: int, data: bytes) -> Any:
    raise ValueError("no ext types")


#: By first byte of an element: its size in bytes; or minus the width of the
#: length that follows; or 0 for an array, a map, or what we never send.
_SIZES: Final = tuple(
    1 if tag < 0x80 or tag >= 0xE0 or tag in (0xC0, 0xC2, 0xC3)
    else tag - 0xA0 + 1 if 0xA0 <= tag < 0xC0
    else {
        0xC4: -1, 0xC5: -2, 0xC6: -4,  # bin
        0xD9: -1, 0xDA: -2, 0xDB: -4,  # str
        0xCA: 5, 0xCB: 9,  # float
        0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9,  # uint
        0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,  # int
    }.get(tag, 0)
    for tag in range(256)
)  # fmt: skip


def _count_elements(frame: bytes | memoryview) -> None:
    """Refuse a large frame that claims more than MAX_ELEMENTS, at any depth in all.

    msgpack limits every array, not their sum, and a megabyte of empty maps
    would become sixty.  One linear walk from header to header; a frame with a
    few large bodies takes a few steps.
    """
    at, end = 0, len(frame)
    due, claimed = 1, 0
    while due and at < end:
        due -= 1
        tag = frame[at]
        size = _SIZES[tag]
        if size > 0:
            at += size
            continue
        if size < 0:
            body = at + 1 - size
            at = body + int.from_bytes(frame[at + 1 : body], "big")
            continue
        if 0x80 <= tag < 0xA0:  # a small map or array
            count, is_map = tag & 0x0F, tag < 0x90
            at += 1
        elif 0xDC <= tag <= 0xDF:
            body = at + (5 if tag & 1 else 3)
            count, is_map = int.from_bytes(frame[at + 1 : body], "big"), tag >= 0xDE
            at = body
        else:
            raise ProtocolError("a frame has an element of no known type")
        due += 2 * count if is_map else count
        claimed += 2 * count if is_map else count
        if claimed > MAX_ELEMENTS:
            raise ProtocolError("a frame has too many elements")


# -- encoding -----------------------------------------------------------------


def _encode_submit(message: f.Submit) -> list[Any]:
    fields: list[Any] = [Kind.SUBMIT.value]
    for job in message.jobs:
        fields += job
    return fields


def _encode_refused(message: f.Refused) -> list[Any]:
    fields: list[Any] = [Kind.REFUSED.value]
    for job in message.jobs:
        fields += job
    return fields


def _encode_retried(message: f.Retried) -> list[Any]:
    fields: list[Any] = [Kind.RETRIED.value]
    for job in message.jobs:
        fields += job
    return fields


def _encode_full(message: f.Full) -> list[Any]:
    fields: list[Any] = [Kind.FULL.value]
    for queue in message.queues:
        fields += queue
    return fields


def _encode_work(message: f.Work) -> list[Any]:
    fields: list[Any] = [Kind.WORK.value]
    for batch_id, jobs, deadlines in message.batches:
        fields += (batch_id, deadlines, len(jobs))
        for job in jobs:
            fields += job
    return fields


def _encode_replies(message: f.Replies | f.Kept) -> list[Any]:
    fields: list[Any] = [(Kind.REPLIES if type(message) is f.Replies else Kind.KEPT).value]
    for batch_id, is_last, ended, groups in message.replies:
        fields += (batch_id, is_last, b"".join(ended), len(groups))
        for group in groups:
            fields += group
    return fields


def _encode_measurements(message: f.Measurements) -> list[Any]:
    fields: list[Any] = [Kind.MEASUREMENTS.value]
    for row in message.rows:
        fields += row
    return fields


def _row(kind: Kind) -> Callable[[Any], list[Any]]:
    code = kind.value
    return lambda message: [code, *message]


def _spread(kind: Kind) -> Callable[[Any], list[Any]]:
    code = kind.value
    return lambda message: [code, *message[0]]


_ENCODERS: Final[dict[type, Callable[[Any], list[Any]]]] = {
    f.FrontendHello: _row(Kind.FRONTEND_HELLO),
    f.Submit: _encode_submit,
    f.Cancel: _spread(Kind.CANCEL),
    f.Call: _row(Kind.CALL),
    f.Welcome: _row(Kind.WELCOME),
    f.Answers: _spread(Kind.ANSWERS),
    f.Refused: _encode_refused,
    f.Retried: _encode_retried,
    f.Result: _row(Kind.RESULT),
    f.Full: _encode_full,
    f.Load: _row(Kind.LOAD),
    f.Work: _encode_work,
    f.Drop: _spread(Kind.DROP),
    f.Leave: _row(Kind.LEAVE),
    f.WorkerHello: _row(Kind.WORKER_HELLO),
    f.Loaded: _row(Kind.LOADED),
    f.LoadFailed: _row(Kind.LOAD_FAILED),
    f.Replies: _encode_replies,
    f.Measurements: _encode_measurements,
    f.WorkerBack: _row(Kind.WORKER_BACK),
    f.Kept: _encode_replies,
    f.SequencesEnded: _spread(Kind.SEQUENCES_ENDED),
}


def encode(message: f.Message) -> bytes:
    """One record to one frame."""
    packed: bytes = _packer.pack(_ENCODERS[type(message)](message))
    return packed


# -- decoding -----------------------------------------------------------------


def _check(value: Any, kind: type[T] | tuple[type, ...]) -> T:
    # bool is an int to isinstance; no field of ours wants that.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ProtocolError(f"a field has the wrong type {type(value).__name__}")
    # msgpack lets bytes be keys as well; we spread maps into keyword arguments.
    if type(value) is dict and not all(type(key) is str for key in value):
        raise ProtocolError("a key is not text")
    return value  # type: ignore[return-value]


def _job_id(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != JOB_ID_BYTES:
        raise ProtocolError("not a job id")
    return value


def _fixed(fields: list[Any], record: Callable[..., T], *types: Any) -> T:
    if len(fields) - 1 != len(types):
        raise ProtocolError("wrong number of fields")
    return record(*[_check(value, kind) for value, kind in zip(fields[1:], types, strict=True)])


#: A record out of a row that has been checked.  Its own constructor is Python
#: code, and there are a dozen records to a request.
_new: Final = tuple.__new__


def _decode_submit(fields: list[Any]) -> f.Submit:
    if (len(fields) - 1) % 6:
        raise ProtocolError("wrong number of fields")
    jobs = []
    for i in range(1, len(fields), 6):
        row = fields[i : i + 6]
        job_id, model, version, deadline, flags, payload = row
        if (
            type(job_id) is not bytes
            or len(job_id) != JOB_ID_BYTES
            or type(model) is not str
            or (version is not None and type(version) is not str)
            or type(deadline) is not float
            or deadline != deadline  # NaN: a job that would never expire
            or type(flags) is not int
            or type(payload) is not bytes
        ):
            raise ProtocolError("a job has a wrong field")
        jobs.append(_new(f.SubmittedJob, row))
    return f.Submit(jobs)


def _decode_refused(fields: list[Any]) -> f.Refused:
    if (len(fields) - 1) % 4:
        raise ProtocolError("wrong number of fields")
    return f.Refused(
        [
            f.RefusedJob(
                _job_id(fields[i]),
                _check(fields[i + 1], str),
                _check(fields[i + 2], str),
                _check(fields[i + 3], dict),
            )
            for i in range(1, len(fields), 4)
        ]
    )


def _decode_retried(fields: list[Any]) -> f.Retried:
    if (len(fields) - 1) % 2:
        raise ProtocolError("wrong number of fields")
    return f.Retried(
        [
            f.RetriedJob(_job_id(fields[i]), _check(fields[i + 1], int))
            for i in range(1, len(fields), 2)
        ]
    )


def _decode_full(fields: list[Any]) -> f.Full:
    if (len(fields) - 1) % 5:
        raise ProtocolError("wrong number of fields")
    return f.Full(
        [
            f.FullQueue(
                _check(fields[i], str),
                _check(fields[i + 1], str),
                _check(fields[i + 2], bool),
                _check(fields[i + 3], float),
                _check(fields[i + 4], int),
            )
            for i in range(1, len(fields), 5)
        ]
    )


def _decode_work(fields: list[Any]) -> f.Work:
    batches = []
    at, end = 1, len(fields)
    while at < end:
        if at + 3 > end:
            raise ProtocolError("a batch is cut off")
        batch_id, deadlines, count = fields[at : at + 3]
        at += 3
        if type(batch_id) is not int or type(count) is not int:
            raise ProtocolError("a batch has a wrong field")
        if count < 1 or at + 2 * count > end:
            raise ProtocolError("a batch is cut off")
        if deadlines is not None:
            _check_deadlines(deadlines, count)
        until = at + 2 * count
        jobs = [_new(f.WorkJob, fields[i : i + 2]) for i in range(at, until, 2)]
        for job_id, payload in jobs:
            if (
                type(job_id) is not bytes
                or len(job_id) != JOB_ID_BYTES
                or type(payload) is not bytes
            ):
                raise ProtocolError("a job has a wrong field")
        at = until
        batches.append(f.WorkBatch(batch_id, jobs, deadlines))
    return f.Work(batches)


def _check_deadlines(deadlines: Any, count: int) -> None:
    if (
        type(deadlines) is not list
        or len(deadlines) != count
        or not all(deadline is None or type(deadline) is float for deadline in deadlines)
    ):
        raise ProtocolError("a batch has wrong deadlines")


def _decode_replies(fields: list[Any]) -> f.Replies:
    replies = []
    at, end = 1, len(fields)
    while at < end:
        if at + 4 > end:
            raise ProtocolError("a reply is cut off")
        batch_id, is_last, joined, count = fields[at : at + 4]
        at += 4
        if (
            type(batch_id) is not int
            or type(is_last) is not bool
            or type(joined) is not bytes
            or len(joined) % JOB_ID_BYTES
            or type(count) is not int
            or count < 0
            or at + 2 * count > end
        ):
            raise ProtocolError("a reply has a wrong field")
        groups = []
        for i in range(at, at + 2 * count, 2):
            row = fields[i : i + 2]
            frontend_id, frame = row
            if (
                type(frontend_id) is not bytes
                or len(frontend_id) != FRONTEND_ID_BYTES
                or type(frame) is not bytes
            ):
                raise ProtocolError("a reply has a wrong field")
            groups.append(_new(f.Group, row))
        at += 2 * count
        ended = [joined[i : i + JOB_ID_BYTES] for i in range(0, len(joined), JOB_ID_BYTES)]
        replies.append(_new(f.Reply, (batch_id, is_last, ended, groups)))
    return f.Replies(replies)


def _decode_measurements(fields: list[Any]) -> f.Measurements:
    if (len(fields) - 1) % 7:
        raise ProtocolError("wrong number of fields")
    rows = []
    for i in range(1, len(fields), 7):
        kind, name, unit, labels, values, number, counts = row = fields[i : i + 7]
        if (
            kind not in ("counter", "gauge", "histogram")
            or type(name) is not str
            or type(unit) is not str
            or type(number) is not float
            or not _is_list_of(labels, str)
            or not _is_list_of(values, str)
            or not _is_list_of(counts, int)
        ):
            raise ProtocolError("a measurement has a wrong field")
        rows.append(_new(f.Measurement, row))
    return f.Measurements(rows)


def _is_list_of(value: Any, kind: type) -> bool:
    return type(value) is list and all(type(item) is kind for item in value)


_OPTIONAL_STR: Final = (str, type(None))

_FROM_FRONTEND: Final[dict[int, Callable[[list[Any]], f.FromFrontend]]] = {
    Kind.SUBMIT: _decode_submit,
    Kind.FRONTEND_HELLO: lambda x: _fixed(x, f.FrontendHello, int, int, bytes),
    Kind.CANCEL: lambda x: f.Cancel([_job_id(value) for value in x[1:]]),
    Kind.CALL: lambda x: _fixed(x, f.Call, int, str, dict),
}
_TO_FRONTEND: Final[dict[int, Callable[[list[Any]], f.ToFrontend]]] = {
    Kind.ANSWERS: lambda x: f.Answers([_check(value, bytes) for value in x[1:]]),
    Kind.WELCOME: lambda x: _fixed(x, f.Welcome, int, bytes),
    Kind.REFUSED: _decode_refused,
    Kind.RETRIED: _decode_retried,
    Kind.RESULT: lambda x: _fixed(x, f.Result, int, _OPTIONAL_STR, str, dict),
    Kind.FULL: _decode_full,
}
_TO_WORKER: Final[dict[int, Callable[[list[Any]], f.ToWorker]]] = {
    Kind.WORK: _decode_work,
    Kind.LOAD: lambda x: _fixed(x, f.Load, dict),
    Kind.DROP: lambda x: f.Drop([_job_id(value) for value in x[1:]]),
    Kind.LEAVE: lambda x: _fixed(x, f.Leave),
}
_FROM_WORKER: Final[dict[int, Callable[[list[Any]], f.FromWorker]]] = {
    Kind.REPLIES: _decode_replies,
    Kind.WORKER_HELLO: lambda x: _fixed(x, f.WorkerHello, int, int, bytes, int),
    Kind.WORKER_BACK: lambda x: _fixed(x, f.WorkerBack, int, int, bytes, int, dict),
    Kind.KEPT: lambda x: f.Kept(_decode_replies(x).replies),
    Kind.LOADED: lambda x: _fixed(x, f.Loaded, dict),
    Kind.MEASUREMENTS: _decode_measurements,
    Kind.SEQUENCES_ENDED: lambda x: f.SequencesEnded([_check(value, str) for value in x[1:]]),
    Kind.LOAD_FAILED: lambda x: _fixed(x, f.LoadFailed, str, str, str),
}


def _decode(frame: bytes | memoryview, table: dict[int, Callable[[list[Any]], T]]) -> T:
    fields = unpack(frame)
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise ProtocolError("not a frame of ours")
    decode = table.get(fields[0])
    if decode is None:
        raise ProtocolError(f"a frame of kind {fields[0]} has no business here")
    return decode(fields)


def decode_from_frontend(frame: bytes | memoryview) -> f.FromFrontend:
    """What the supervisor's frontend socket received."""
    return _decode(frame, _FROM_FRONTEND)


def decode_to_frontend(frame: bytes | memoryview) -> f.ToFrontend:
    """What a frontend received."""
    return _decode(frame, _TO_FRONTEND)


def decode_to_worker(frame: bytes | memoryview) -> f.ToWorker:
    """What a worker received."""
    return _decode(frame, _TO_WORKER)


def decode_from_worker(frame: bytes | memoryview) -> f.FromWorker:
    """What the supervisor's worker socket received."""
    return _decode(frame, _FROM_WORKER)
