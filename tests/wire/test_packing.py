"""Plain values: what is too much, cut short or noise is refused before it costs anything."""

from __future__ import annotations

import resource
import struct
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_values import plain

from stoker.errors import ProtocolError
from stoker.wire import limits, packing


def claim(tag: int, count: int) -> bytes:
    """A header with a 32-bit length."""
    return bytes([tag]) + struct.pack(">I", count)


ARRAY, MAP, BIN, STR, EXT = 0xDD, 0xDF, 0xC6, 0xDB, 0xC9
MANY = limits.MAX_ELEMENTS


@pytest.mark.parametrize(
    "frame",
    [
        claim(ARRAY, 2**32 - 1),
        b"\x92\x02" + claim(BIN, 2**32 - 1),
        b"\x92\x02" + claim(BIN, limits.MAX_PAYLOAD_BYTES),
        b"\x92\x02" + claim(STR, 2**32 - 1),
        b"\x92\x02" + claim(MAP, 2**32 - 1),
        b"\x92\x02" + claim(EXT, 2**32 - 1) + b"\x05",
        b"\x92\x02" + claim(ARRAY, MANY) * 900,
        claim(ARRAY, MANY + 1) + b"\xc0" * (MANY + 1),
        # Each array within the limit, a thousand of them not.
        claim(ARRAY, 1000) + (claim(ARRAY, MANY) + b"\xc0" * MANY) * 60,
        # One byte each on the wire, sixty-four in memory.
        claim(ARRAY, MANY) + (b"\x98" + b"\x80" * 8) * (1 << 21),
        claim(ARRAY, 2) + b"\xc0" * (16 << 20),
        b"\xc0" * (16 << 20),
    ],
    ids=lambda frame: f"{frame[:6].hex()}-{len(frame)}",
)
def test_claims_cost_nothing_before_they_are_true(frame: bytes) -> None:
    """
    A few bytes that promise gigabytes must neither take them nor the loop's time.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()

    with pytest.raises(ProtocolError):
        packing.unpack(frame)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB
    assert time.process_time() - started < 2.0


@given(value=plain)
def test_the_walk_knows_every_type(value: Any) -> None:
    """
    A large management answer takes the same walk as a large body.
    """
    padding = bytes(limits.UNWALKED_BYTES)

    assert packing.unpack(packing.pack([value, padding, value])) == [value, padding, value]


@given(cut=st.integers(0, 400), value=plain)
def test_large_frames_cut_short_are_refused(cut: int, value: Any) -> None:
    """
    Also when the walk sees them first.
    """
    frame = packing.pack([bytes(limits.UNWALKED_BYTES), value, "x" * 500])

    with pytest.raises(ProtocolError):
        packing.unpack(frame[: len(frame) - 1 - cut])


@given(tail=st.binary(max_size=300))
def test_large_noise_never_surprises(tail: bytes) -> None:
    """
    Noise behind a header that passes.
    """
    frame = b"\x93" + packing.pack(bytes(limits.UNWALKED_BYTES)) + tail

    with suppress(ProtocolError):
        packing.unpack(frame)
