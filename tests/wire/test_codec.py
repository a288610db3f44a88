"""Frames: every message round-trips, and everything else is refused cheaply."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_values import blobs, numbers, plain, texts

from stoker.errors import ProtocolError
from stoker.wire import codec, limits, packing
from stoker.wire import frames as f

Decode = Callable[[bytes], Any]
DECODERS: dict[str, Decode] = {
    "from frontend": codec.decode_from_frontend,
    "to frontend": codec.decode_to_frontend,
    "to worker": codec.decode_to_worker,
    "from worker": codec.decode_from_worker,
}

job_ids = st.binary(min_size=16, max_size=16)
frontend_ids = st.binary(min_size=8, max_size=8)
instants = st.floats(allow_nan=False)
maps = st.dictionaries(texts, plain, max_size=4)


def many(strategy: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, min_size=least, max_size=4)


submitted = st.builds(
    f.SubmittedJob, job_ids, texts, st.none() | texts, instants, st.integers(0, 3), blobs
)
some_jobs = many(st.builds(f.WorkJob, job_ids, blobs), least=1)
batches = st.tuples(numbers, some_jobs).flatmap(
    lambda batch: st.builds(
        f.WorkBatch,
        *map(st.just, batch),
        st.none() | st.lists(st.none() | instants, min_size=len(batch[1]), max_size=len(batch[1])),
    )
)
groups = many(st.builds(f.Group, frontend_ids, blobs))
replies = many(st.builds(f.Reply, numbers, st.booleans(), many(job_ids), groups))
full_queues = st.builds(f.FullQueue, texts, texts, st.booleans(), instants, numbers)
MESSAGES: dict[str, st.SearchStrategy[Any]] = {
    "from frontend": st.one_of(
        st.builds(f.FrontendHello, numbers, numbers),
        st.builds(f.Submit, many(submitted)),
        st.builds(f.Cancel, many(job_ids)),
        st.builds(f.Call, numbers, texts, maps),
    ),
    "to frontend": st.one_of(
        st.builds(f.Welcome, numbers, blobs),
        st.builds(f.Answers, many(blobs)),
        st.builds(f.Refused, many(st.builds(f.RefusedJob, job_ids, texts, texts, maps))),
        st.builds(f.Result, numbers, st.none() | texts, texts, maps),
        st.builds(f.Retried, many(st.builds(f.RetriedJob, job_ids, numbers))),
        st.builds(f.Full, many(full_queues)),
    ),
    "to worker": st.one_of(
        st.builds(f.Load, maps),
        st.builds(f.Work, many(batches)),
        st.builds(f.Drop, many(job_ids)),
        st.just(f.Leave()),
    ),
    "from worker": st.one_of(
        st.builds(f.WorkerHello, numbers, numbers, blobs, numbers),
        st.builds(f.Loaded, maps),
        st.builds(f.LoadFailed, texts, texts, texts),
        st.builds(f.Replies, replies),
    ),
}
ways = pytest.mark.parametrize("way", list(DECODERS))


def refused_or_ours(decode: Decode, frame: bytes) -> Any:
    """The message, or None for ProtocolError; any other exception fails the test."""
    try:
        return decode(frame)
    except ProtocolError:
        return None


# -- what is ours -------------------------------------------------------------


@ways
@given(data=st.data())
def test_every_message_round_trips(way: str, data: st.DataObject) -> None:
    """
    What one process says, the other hears: same records, same types.
    """
    message = data.draw(MESSAGES[way])

    frame = codec.encode(message)

    decoded = DECODERS[way](frame)
    assert decoded == message
    assert type(decoded) is type(message)
    assert DECODERS[way](memoryview(frame)) == message  # as zmq hands out large ones


@ways
@given(data=st.data())
def test_messages_are_understood_in_their_direction_only(way: str, data: st.DataObject) -> None:
    """
    A worker that could send CALL would manage the server.
    """
    frame = codec.encode(data.draw(MESSAGES[way]))

    for other, decode in DECODERS.items():
        if other != way:
            with pytest.raises(ProtocolError):
                decode(frame)


def test_a_message_that_cannot_be_packed_spoils_no_other() -> None:
    """
    The packer is re-used: half of a refused message must not lead the next one.
    """
    call = f.Call(1, "list", {})

    with pytest.raises(TypeError):
        codec.encode(f.Call(1, "list", {"value": object()}))
    with pytest.raises(UnicodeEncodeError):
        codec.encode(f.Call(1, "list", {"value": "\udc80"}))
    with pytest.raises(OverflowError):
        codec.encode(f.Call(1, "list", {"value": 1 << 64}))

    assert codec.decode_from_frontend(codec.encode(call)) == call


# -- what is not --------------------------------------------------------------


@ways
@given(data=st.data())
def test_truncated_frames_are_refused(way: str, data: st.DataObject) -> None:
    """
    At every cut.
    """
    frame = codec.encode(data.draw(MESSAGES[way]))

    for cut in range(len(frame)):
        with pytest.raises(ProtocolError):
            DECODERS[way](frame[:cut])


@ways
@given(data=st.data(), tail=st.binary(min_size=1, max_size=9))
def test_frames_with_a_tail_are_refused(way: str, data: st.DataObject, tail: bytes) -> None:
    """
    One message is one frame; whatever follows was not meant for us.
    """
    frame = codec.encode(data.draw(MESSAGES[way]))

    with pytest.raises(ProtocolError):
        DECODERS[way](frame + tail)


@ways
@settings(max_examples=150)
@given(data=st.data())
def test_flipped_bits_never_surprise(way: str, data: st.DataObject) -> None:
    """
    Refused, or another message of ours that survives the trip itself.
    """
    frame = bytearray(codec.encode(data.draw(MESSAGES[way])))
    for _ in range(data.draw(st.integers(1, 3))):
        bit = data.draw(st.integers(0, len(frame) * 8 - 1))
        frame[bit // 8] ^= 1 << bit % 8

    message = refused_or_ours(DECODERS[way], bytes(frame))

    if message is not None:
        again = DECODERS[way](codec.encode(message))
        assert repr(again) == repr(message)  # NaN is not equal to itself


@ways
@settings(max_examples=150)
@given(frame=st.binary(max_size=200))
def test_noise_never_surprises(way: str, frame: bytes) -> None:
    """
    Any bytes at all.
    """
    refused_or_ours(DECODERS[way], frame)


@ways
@settings(max_examples=200)
@given(fields=st.lists(st.sampled_from(f.Kind).map(int) | plain | job_ids, max_size=9))
@example(fields=[])
@example(fields=[True])
@example(fields=[1.0])
def test_well_formed_nonsense_never_surprises(way: str, fields: list[Any]) -> None:
    """
    Right syntax, wrong fields: the peer that tries hardest.
    """
    message = refused_or_ours(DECODERS[way], packing.pack(fields))

    if message is not None:
        assert DECODERS[way](codec.encode(message)) == message


JOB = [b"j" * 16, "echo", None, 1.0, 0, b""]


@pytest.mark.parametrize(
    ("decode", "fields"),
    [
        (codec.decode_from_frontend, [2, *JOB, b"j" * 16]),
        (codec.decode_from_frontend, [2, b"j" * 15, *JOB[1:]]),
        (codec.decode_from_frontend, [2, *JOB[:3], math.nan, 0, b""]),
        (codec.decode_from_frontend, [2, *JOB[:3], 1, 0, b""]),
        (codec.decode_from_frontend, [2, *JOB[:4], True, b""]),
        (codec.decode_from_frontend, [2, *JOB[:5], "text"]),
        (codec.decode_from_frontend, [4, 1, "scale", [["model", "echo"]]]),
        (codec.decode_from_frontend, [4, 1, "scale", {b"model": "echo"}]),
        (codec.decode_from_frontend, [4, True, "scale", {}]),
        (codec.decode_to_worker, [33, 1, 0]),
        (codec.decode_to_worker, [33, 1, -1]),
        (codec.decode_to_worker, [33, 1, 2**63, b"j" * 16, b""]),
        (codec.decode_to_worker, [33, 1, 2, b"j" * 16, b""]),
        (codec.decode_to_worker, [35, None]),
        (codec.decode_from_worker, [51, 1, True, b"j" * 17, 0]),
        (codec.decode_from_worker, [51, 1, 1, b"", 0]),
        (codec.decode_from_worker, [51, 1, True, b"", -1]),
        (codec.decode_from_worker, [51, 1, True, b"", 2**63]),
        (codec.decode_from_worker, [51, 1, True, b"", 1, b"short", b""]),
        (codec.decode_from_worker, [51, 1, True, b"", 1, b"f" * 8]),
        (codec.decode_from_worker, [50, "load_failed", "why", None]),
        (codec.decode_from_worker, [99]),
        (codec.decode_from_worker, [-1]),
    ],
)
def test_wrong_fields_are_refused(decode: Decode, fields: list[Any]) -> None:
    """
    Each of these would have hurt further in.
    """
    with pytest.raises(ProtocolError):
        decode(packing.pack(fields))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x92\x23",
        msgpack.packb({35: 1}),
        msgpack.packb([35, {1: 2}]),
        msgpack.packb([35, msgpack.ExtType(5, b"")]),
        msgpack.packb([35, msgpack.Timestamp(1, 1)]),
        b"\x92\x23\xc1",
        b"\x92\x23\xa2\xff\xff",
        b"\x91" * 100_000,
        b"\x81\xa0" * 100_000,
    ],
)
@ways
def test_what_we_never_send_is_refused(way: str, frame: bytes) -> None:
    """
    Maps at the top, numbers as keys, ext types, broken text, bottomless depth.
    """
    with pytest.raises(ProtocolError):
        DECODERS[way](frame)


@pytest.mark.parametrize("jobs", [1, 4000])
def test_large_frames_of_ours_pass(jobs: int) -> None:
    """
    The walk over large frames must know every element that we send.
    """
    size = 4_000_000 // jobs
    message = f.Submit(
        [
            f.SubmittedJob(n.to_bytes(16, "big"), "echo", None, float(n), n, bytes(size))
            for n in range(jobs)
        ]
    )

    frame = codec.encode(message)

    assert len(frame) > limits.UNWALKED_BYTES
    assert codec.decode_from_frontend(frame) == message
    assert codec.decode_from_frontend(memoryview(frame)) == message
