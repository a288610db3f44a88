"""Request payloads and answer frames: round trips, and writers that lie."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker import errors
from stoker.errors import ProtocolError
from stoker.wire import packing
from stoker.wire.loading import LoadSpec
from stoker.wire.payloads import (
    Answer,
    AnswerKind,
    Parameter,
    RequestPayload,
    header_block,
    pack_answers,
    pack_request,
    split_header_block,
    unpack_answers,
    unpack_request,
)

texts = st.text(max_size=20)
blobs = st.binary(max_size=60)
job_ids = st.binary(min_size=16, max_size=16)
headers = st.lists(st.tuples(texts, texts), max_size=4)
lines = texts.filter(lambda text: "\n" not in text)
requests = st.builds(
    RequestPayload,
    texts,
    st.lists(st.tuples(lines, lines), max_size=4).filter(lambda pairs: pairs != [("", "")]),
    st.lists(st.builds(Parameter, texts, texts, blobs), max_size=4),
)
results = st.builds(
    Answer,
    job_ids,
    st.sampled_from([AnswerKind.FINAL, AnswerKind.CHUNK]),
    st.integers(0, 999),
    texts,
    st.none() | texts,
    headers,
    blobs,
    st.none(),
)
details = st.dictionaries(texts, texts | st.integers(-5, 5) | st.none(), max_size=3)
failures = st.builds(
    lambda job_id, error: Answer(job_id, AnswerKind.ERROR, 0, "", None, [], b"", error),
    job_ids,
    st.builds(
        errors.from_wire,
        st.sampled_from(["handler_failed", "worker_died", "not of this release"]),
        texts,
        details,
    ),
)
answer_lists = st.lists(results | failures, max_size=4)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts | blobs,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def comparable(answer: Answer) -> tuple[Any, ...]:
    """Errors compare by identity; on the wire they are three parts."""
    error = answer.error
    if error is None:
        return tuple(answer)
    return (*answer[:-1], type(error), error.message, error.details)


def packed(request: RequestPayload) -> bytes:
    return pack_request(request.request_id, header_block([], request.headers), request.parameters)


def check_request(payload: RequestPayload) -> None:
    """What the worker relies on without looking."""
    assert type(payload.request_id) is str
    assert all(type(text) is str for header in payload.headers for text in header)
    for name, content_type, body in payload.parameters:
        assert (type(name), type(content_type), type(body)) == (str, str, bytes)


def check_answer(answer: Answer) -> None:
    """What the HTTP layer relies on without looking."""
    assert len(answer.job_id) == 16
    assert type(answer.kind) is AnswerKind
    assert 0 <= answer.status <= 999
    assert type(answer.reason) is str
    assert answer.content_type is None or type(answer.content_type) is str
    assert all(type(text) is str for header in answer.headers for text in header)
    assert type(answer.body) is bytes
    assert (answer.error is not None) == (answer.kind is AnswerKind.ERROR)
    if answer.error is not None:
        assert type(answer.error.message) is str
        assert all(type(key) is str for key in answer.error.details)


# -- requests -----------------------------------------------------------------


@given(request=requests)
def test_requests_round_trip(request: RequestPayload) -> None:
    """
    Spelling of names, empty content types and order included.
    """
    assert unpack_request(packed(request)) == request


@given(request=requests)
def test_truncated_requests_are_refused(request: RequestPayload) -> None:
    """
    At every cut.
    """
    payload = packed(request)

    for cut in range(len(payload)):
        with pytest.raises(ProtocolError):
            unpack_request(payload[:cut])


@settings(max_examples=200)
@given(request=requests, data=st.data())
def test_damaged_requests_never_surprise(request: RequestPayload, data: st.DataObject) -> None:
    """
    Refused, or a request with every type in its place.
    """
    payload = bytearray(packed(request))
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[bit // 8] ^= 1 << bit % 8

    try:
        check_request(unpack_request(bytes(payload)))
    except ProtocolError:
        pass


@settings(max_examples=200)
@given(fields=plain | st.lists(plain | st.integers(-3, 3), max_size=8))
def test_well_formed_nonsense_is_no_request(fields: Any) -> None:
    """
    Right syntax, wrong fields.
    """
    try:
        check_request(unpack_request(packing.pack(fields)))
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "fields",
    [
        "text",
        b"\x05\x00",
        {"a": 1},
        [],
        ["id"],
        [5, b""],
        ["id", -1],
        ["id", "a\nb"],
        ["id", b"name"],
        ["id", b"a\nb\nc"],
        ["id", b"a\n\xff"],
        ["id", b"", "body"],
        ["id", b"", "body", ""],
        ["id", b"", "body", None, b""],
        ["id", b"", "body", "", "text"],
        ["id", b"", "body", "", [1, 2, 3]],
        ["id", b"", "body", "", [1, 2, 3, -1]],
    ],
)
def test_wrong_requests_are_refused(fields: Any) -> None:
    """
    Each of these would have reached a handler as something odd.
    """
    with pytest.raises(ProtocolError):
        unpack_request(packing.pack(fields))


@given(
    raw=st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=4),
    added=st.lists(st.tuples(texts, texts), max_size=2),
)
def test_any_header_keeps_to_its_line(
    raw: list[tuple[bytes, bytes]], added: list[tuple[str, str]]
) -> None:
    """
    Whatever a client sends, no value can pass for another header.
    """
    texts = split_header_block(header_block(raw, added))

    wanted = [part.decode("latin-1") for pair in raw for part in pair]
    wanted += [part for pair in added for part in pair]
    if wanted != ["", ""]:
        assert texts == [part.replace("\n", " ") for part in wanted]


# -- answers ------------------------------------------------------------------


@given(answers=answer_lists)
def test_answers_round_trip(answers: list[Answer]) -> None:
    """
    Results and errors of one batch share a frame.
    """
    unpacked = unpack_answers(pack_answers(answers))

    assert [comparable(answer) for answer in unpacked] == [comparable(x) for x in answers]
    for answer in unpacked:
        check_answer(answer)


def test_an_error_comes_back_as_its_class() -> None:
    """
    Dialects map classes and codes; an unknown one keeps its text.
    """
    known = errors.HandlerFailed("Prediction failed", model="echo")
    answer = Answer(b"j" * 16, AnswerKind.ERROR, 0, "", None, [], b"", known)

    (unpacked,) = unpack_answers(pack_answers([answer]))

    assert type(unpacked.error) is errors.HandlerFailed
    assert unpacked.error.details == {"model": "echo"}


@given(answers=answer_lists)
def test_truncated_answers_are_refused(answers: list[Answer]) -> None:
    """
    At every cut.
    """
    frame = pack_answers(answers)

    for cut in range(len(frame)):
        with pytest.raises(ProtocolError):
            unpack_answers(frame[:cut])


@settings(max_examples=200)
@given(answers=answer_lists, data=st.data())
def test_damaged_answers_never_surprise(answers: list[Answer], data: st.DataObject) -> None:
    """
    Refused, or answers with every type in its place.
    """
    frame = bytearray(pack_answers(answers))
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << bit % 8

    try:
        for answer in unpack_answers(bytes(frame)):
            check_answer(answer)
    except ProtocolError:
        pass


@settings(max_examples=200)
@given(
    field=plain,
    at=st.integers(0, 6),
    kind=st.sampled_from(AnswerKind),
)
def test_one_wrong_field_is_refused_or_harmless(field: Any, at: int, kind: AnswerKind) -> None:
    """
    A handler's process writes these: it may write anything.
    """
    row: list[Any] = [b"j" * 16, kind.value, 200, "OK", "text/plain", ["a", "b"], b"\x80"]
    row[at] = field

    try:
        for answer in unpack_answers(packing.pack(row)):
            check_answer(answer)
    except ProtocolError:
        pass


ROW: list[Any] = [b"j" * 16, 0, 200, "OK", None, [], b"body"]


@pytest.mark.parametrize(
    ("at", "field"),
    [
        (0, b"j" * 15),
        (0, "j" * 16),
        (1, 4),
        (1, False),
        (1, 0.0),
        (2, -1),
        (2, 1000),
        (2, None),
        (3, b"OK"),
        (4, 5),
        (5, {"a": 1}),
        (5, "ab"),
        (5, ["a"]),
        (5, ["a", b"b"]),
        (6, "text"),
        (6, None),
    ],
)
def test_wrong_answers_are_refused(at: int, field: Any) -> None:
    """
    Each of these would have broken in the middle of an HTTP response.
    """
    with pytest.raises(ProtocolError):
        unpack_answers(packing.pack([*ROW[:at], field, *ROW[at + 1 :]]))


@pytest.mark.parametrize(
    ("message", "packed"),
    [
        (None, packing.pack({})),
        ("why", packing.pack([])),
        ("why", packing.pack({b"key": 1})),
        ("why", b""),
        ("why", b"\xc1"),
    ],
)
def test_wrong_errors_are_refused(message: Any, packed: bytes) -> None:
    """
    Details become keyword arguments and JSON.
    """
    row = [b"j" * 16, AnswerKind.ERROR.value, 0, "handler_failed", message, [], packed]

    with pytest.raises(ProtocolError):
        unpack_answers(packing.pack(row))


@settings(max_examples=200)
@given(noise=st.binary(max_size=200))
def test_noise_is_neither_request_nor_answer(noise: bytes) -> None:
    """
    Any bytes at all.
    """
    try:
        check_request(unpack_request(noise))
    except ProtocolError:
        pass
    try:
        for answer in unpack_answers(noise):
            check_answer(answer)
    except ProtocolError:
        pass


# -- what to load -------------------------------------------------------------


def test_load_specs_round_trip() -> None:
    """
    Through the codec, as the worker gets it.
    """
    spec = LoadSpec("echo", "1.0", "echo.py", "/cache/echo", {"model": {}}, {"a": [1]}, gpu_id=1)

    assert LoadSpec.from_wire(packing.unpack(packing.pack(spec.to_wire()))) == spec


@pytest.mark.parametrize(
    "spec", [{}, {"model": "echo"}, {"unknown": 1}, {"model": "a", "version": "1", "handle": "x"}]
)
def test_load_specs_of_another_release_are_refused(spec: dict[str, Any]) -> None:
    """
    Better a refusal than half a model.
    """
    with pytest.raises(ProtocolError):
        LoadSpec.from_wire(spec)
