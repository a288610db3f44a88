"""Messages to frames and back: records of `frames.py`, each of one array.

Decoding trusts nobody: a frame of the wrong kind for its direction, or with
fields of the wrong types, raises `ProtocolError`, and the caller drops the
peer; what is no plain value under our limits has raised it before
(`packing.py`).  To add a message, add a row per direction to the tables.

Raises:
    ProtocolError: from every `decode_*`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from stoker.errors import ProtocolError
from stoker.wire import frames as f
from stoker.wire.frames import FRONTEND_ID_BYTES, JOB_ID_BYTES, Kind
from stoker.wire.lent_bodies import Handle, LentFrame
from stoker.wire.packing import packer, unpack

T = TypeVar("T")
#: Open files that came with a frame, in the order in which it speaks of them.
Handles = deque[Handle]

# -- encoding -----------------------------------------------------------------

#: Asking a member of an enum for its value is a call, and these go out with every request.
_WORK: Final = Kind.WORK.value
_REPLIES: Final = Kind.REPLIES.value
_KEPT: Final = Kind.KEPT.value
_ANSWERS: Final = Kind.ANSWERS.value


def _fields(kind: Kind) -> Callable[[Any], list[Any]]:
    """Of a message whose fields are the frame's."""
    code = kind.value
    return lambda message: [code, *message]


def _frame(frame: f.AnswerFrame) -> bytes | list[bytes]:
    """One that is lent leaves its file to whoever sends the message."""
    if isinstance(frame, bytes):
        return frame
    assert isinstance(frame, LentFrame)
    return [frame.frame] if frame.is_whole else [frame.frame, b""]


def _items(kind: Kind) -> Callable[[Any], list[Any]]:
    """Of a message that is a list of plain values."""
    code = kind.value
    return lambda message: [code, *message[0]]


def _rows(kind: Kind) -> Callable[[Any], list[Any]]:
    """Of a message that is a list of records: their fields, one after the other."""
    code = kind.value

    def encode(message: Any) -> list[Any]:
        fields: list[Any] = [code]
        for row in message[0]:
            fields += row
        return fields

    return encode


def _encode_work(message: f.Work) -> list[Any]:
    fields: list[Any] = [_WORK]
    for batch_id, jobs, deadlines in message.batches:
        fields += (batch_id, deadlines, len(jobs))
        for job in jobs:
            fields += job
    return fields


def _encode_replies(message: f.Replies | f.Kept) -> list[Any]:
    fields: list[Any] = [_REPLIES if type(message) is f.Replies else _KEPT]
    for batch_id, is_last, ended, groups in message.replies:
        fields += (batch_id, is_last, b"".join(ended), len(groups))
        for frontend_id, frame in groups:
            fields += (frontend_id, frame if type(frame) is bytes else _frame(frame))
    return fields


_ENCODERS: Final[dict[type, Callable[[Any], list[Any]]]] = {
    f.FrontendHello: _fields(Kind.FRONTEND_HELLO),
    f.FrontendListens: _fields(Kind.FRONTEND_LISTENS),
    f.Submit: _rows(Kind.SUBMIT),
    f.Cancel: _items(Kind.CANCEL),
    f.Call: _fields(Kind.CALL),
    f.Welcome: _fields(Kind.WELCOME),
    f.Answers: lambda message: [_ANSWERS, *map(_frame, message.frames)],
    f.Refused: _rows(Kind.REFUSED),
    f.Retried: _rows(Kind.RETRIED),
    f.Result: _fields(Kind.RESULT),
    f.Full: _rows(Kind.FULL),
    f.Load: _fields(Kind.LOAD),
    f.Work: _encode_work,
    f.Drop: _items(Kind.DROP),
    f.Leave: _fields(Kind.LEAVE),
    f.WorkerHello: _fields(Kind.WORKER_HELLO),
    f.Loaded: _fields(Kind.LOADED),
    f.LoadFailed: _fields(Kind.LOAD_FAILED),
    f.Replies: _encode_replies,
    f.Measurements: _rows(Kind.MEASUREMENTS),
    f.WorkerBack: _fields(Kind.WORKER_BACK),
    f.Kept: _encode_replies,
    f.SequencesEnded: _items(Kind.SEQUENCES_ENDED),
}


def encode(message: f.Message) -> bytes:
    """One record to one frame."""
    packed: bytes = packer.pack(_ENCODERS[type(message)](message))
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


def _rows_of(fields: list[Any], width: int) -> Iterable[tuple[Any, ...]]:
    """For messages that are rare; of those that come with every request, each saves this call."""
    if (len(fields) - 1) % width:
        raise ProtocolError("wrong number of fields")
    return zip(*[iter(fields[1:])] * width, strict=True)


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
    return f.Retried(
        [
            f.RetriedJob(_job_id(job_id), _check(attempts, int))
            for job_id, attempts in _rows_of(fields, 2)
        ]
    )


def _decode_full(fields: list[Any]) -> f.Full:
    types = (str, str, bool, float, int)
    return f.Full([f.FullQueue(*map(_check, row, types)) for row in _rows_of(fields, len(types))])


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


def _decode_replies(fields: list[Any], handles: Handles | None) -> f.Replies:
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
            if type(frontend_id) is not bytes or len(frontend_id) != FRONTEND_ID_BYTES:
                raise ProtocolError("a reply has a wrong field")
            if type(frame) is not bytes:
                row[1] = _lent(frame, handles)
            groups.append(_new(f.Group, row))
        at += 2 * count
        ended = [joined[i : i + JOB_ID_BYTES] for i in range(0, len(joined), JOB_ID_BYTES)]
        replies.append(_new(f.Reply, (batch_id, is_last, ended, groups)))
    return f.Replies(replies)


def _decode_answers(fields: list[Any], handles: Handles | None) -> f.Answers:
    del fields[0]
    for at, frame in enumerate(fields):
        if type(frame) is not bytes:
            fields[at] = _lent(frame, handles)
    return f.Answers(fields)


def _lent(value: Any, handles: Handles | None) -> LentFrame:
    if type(value) is not list or len(value) not in (1, 2) or set(map(type, value)) != {bytes}:
        raise ProtocolError("not an answer frame")
    has_come = len(value) == 1 and handles
    return LentFrame(value[0], handles.popleft() if handles and has_come else None)


def _decode_measurements(fields: list[Any]) -> f.Measurements:
    rows = list(_rows_of(fields, 7))
    for kind, name, unit, labels, values, number, counts in rows:
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
    return f.Measurements([_new(f.Measurement, row) for row in rows])


def _is_list_of(value: Any, kind: type) -> bool:
    return type(value) is list and all(type(item) is kind for item in value)


def _decode_listens(fields: list[Any]) -> f.FrontendListens:
    said = _fixed(fields, f.FrontendListens, int, bytes)
    if len(said.frontend_id) != FRONTEND_ID_BYTES or said.frontend_id[0] == f.CALL_MARK:
        raise ProtocolError("not the id of a frontend")
    return said


_OPTIONAL_STR: Final = (str, type(None))

_FROM_FRONTEND: Final[dict[int, Callable[[list[Any]], f.FromFrontend]]] = {
    Kind.SUBMIT: _decode_submit,
    Kind.FRONTEND_HELLO: lambda x: _fixed(x, f.FrontendHello, int, int, bytes),
    Kind.CANCEL: lambda x: f.Cancel([_job_id(value) for value in x[1:]]),
    Kind.CALL: lambda x: _fixed(x, f.Call, int, str, dict),
}
_FROM_LISTENER: Final[dict[int, Callable[[list[Any]], f.FrontendListens]]] = {
    Kind.FRONTEND_LISTENS: _decode_listens,
}
_TO_FRONTEND: Final[dict[int, Callable[[list[Any]], f.ToFrontend]]] = {
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
    Kind.WORKER_HELLO: lambda x: _fixed(x, f.WorkerHello, int, int, bytes, int),
    Kind.WORKER_BACK: lambda x: _fixed(x, f.WorkerBack, int, int, bytes, int, dict),
    Kind.LOADED: lambda x: _fixed(x, f.Loaded, dict),
    Kind.MEASUREMENTS: _decode_measurements,
    Kind.SEQUENCES_ENDED: lambda x: f.SequencesEnded([_check(value, str) for value in x[1:]]),
    Kind.LOAD_FAILED: lambda x: _fixed(x, f.LoadFailed, str, str, str),
}


#: Those with which open files may come along.
_WITH_HANDLES_FROM_WORKER: Final[dict[int, Callable[[list[Any], Handles | None], f.FromWorker]]] = {
    Kind.REPLIES: _decode_replies,
    Kind.KEPT: lambda x, handles: f.Kept(_decode_replies(x, handles).replies),
}


def _fields_of(frame: bytes | memoryview) -> list[Any]:
    fields = unpack(frame)
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise ProtocolError("not a frame of ours")
    return fields


def _decode(fields: list[Any], table: dict[int, Callable[[list[Any]], T]]) -> T:
    decode = table.get(fields[0])
    if decode is None:
        raise ProtocolError(f"a frame of kind {fields[0]} has no business here")
    return decode(fields)


def decode_from_frontend(frame: bytes | memoryview) -> f.FromFrontend:
    """What the supervisor's frontend socket received."""
    return _decode(_fields_of(frame), _FROM_FRONTEND)


def decode_from_listener(frame: bytes | memoryview) -> f.FrontendListens:
    """What the supervisor's socket for those who wait for answers received."""
    return _decode(_fields_of(frame), _FROM_LISTENER)


def decode_to_frontend(frame: bytes | memoryview, handles: Handles | None = None) -> f.ToFrontend:
    """What a frontend received, and the open files that came along; it takes those it names."""
    fields = _fields_of(frame)
    if fields[0] == _ANSWERS:
        return _decode_answers(fields, handles)
    return _decode(fields, _TO_FRONTEND)


def decode_to_worker(frame: bytes | memoryview) -> f.ToWorker:
    """What a worker received."""
    return _decode(_fields_of(frame), _TO_WORKER)


def decode_from_worker(frame: bytes | memoryview, handles: Handles | None = None) -> f.FromWorker:
    """What the supervisor's worker socket received, and open files as above."""
    fields = _fields_of(frame)
    decode = _WITH_HANDLES_FROM_WORKER.get(fields[0])
    return _decode(fields, _FROM_WORKER) if decode is None else decode(fields, handles)
