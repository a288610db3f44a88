"""Bodies in a file that came along: read as they are, from a lender of any honesty."""

from __future__ import annotations

import fcntl
import os
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from open_descriptors import open_descriptors

from stoker.errors import ProtocolError
from stoker.wire import codec, packing
from stoker.wire import frames as f
from stoker.wire.lent_bodies import SEALS, Handle, LentFrame
from stoker.wire.payloads import Answer, unpack_answers

JOB = b"frontendjobjobjo"
FRONTEND = b"frontend"
CONTENT = bytes(range(256)) * 16


def row(body: Any, kind: int = 0) -> list[Any]:
    return [JOB, kind, 200, "", None, [], body]


def lent_file(content: bytes = CONTENT, seals: int = SEALS) -> Handle:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return Handle(fd)


def read(frame: LentFrame) -> list[Answer]:
    with frame.opened() as file:
        return unpack_answers(frame.frame, file)


@pytest.fixture(autouse=True)
def files_are_closed() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def test_bodies_are_copied_out_beside_those_that_came_inline() -> None:
    frame = packing.pack([*row([1, 3]), *row(b"inline"), *row([4000, 96])])

    answers = read(LentFrame(frame, lent_file()))

    assert [answer.body for answer in answers] == [CONTENT[1:4], b"inline", CONTENT[4000:4096]]


def test_reading_gives_the_file_back() -> None:
    handle = lent_file()
    frame = LentFrame(packing.pack(row([0, 1])), handle)

    read(frame)

    with pytest.raises(OSError):
        os.fstat(frame.fileno())


def lost(answers: list[Answer]) -> bool:
    """Their requests end with an error that says to ask again."""
    return all(answer.error is not None and answer.error.retryable for answer in answers)


@pytest.mark.parametrize(
    "place", [[-1, 1], [0, -1], [True, 1], [0], [0, 1, 2], ["0", 1], [0, 1.0], []]
)
def test_what_is_no_place_is_refused(place: list[Any]) -> None:
    with pytest.raises(ProtocolError):
        read(LentFrame(packing.pack(row(place)), lent_file()))


@pytest.mark.parametrize("place", [[0, len(CONTENT) + 1], [len(CONTENT), 1], [1 << 62, 1 << 62]])
def test_a_body_outside_of_its_file_ends_its_request_alone(place: list[int]) -> None:
    frame = packing.pack([*row(place), *row([0, 4])])

    outside, inside = read(LentFrame(frame, lent_file()))

    assert lost([outside])
    assert inside.body == CONTENT[:4]


@pytest.mark.parametrize("kind", [0, 1])
def test_a_file_that_was_lost_on_the_way_ends_the_requests_that_needed_it(kind: int) -> None:
    """
    Without a descriptor for it the rest of the message came.
    """
    frame = packing.pack([*row([0, 1], kind), *row(b"inline")])

    gone, inline = read(LentFrame(frame, None))

    assert lost([gone])
    assert inline.body == b"inline"


def test_a_place_in_a_frame_without_a_file_is_a_body_that_cannot_be_had() -> None:
    assert lost(unpack_answers(packing.pack(row([0, 1]))))


@pytest.mark.parametrize(
    "seals", [0, fcntl.F_SEAL_GROW, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL, fcntl.F_SEAL_SHRINK]
)
def test_a_file_that_its_lender_could_cut_short_is_never_mapped(seals: int) -> None:
    """
    Reading beyond the end of a mapped file is a SIGBUS: the frontend would die of it.
    """
    assert lost(read(LentFrame(packing.pack(row([0, 1])), lent_file(seals=seals))))


def test_something_that_is_no_file_in_memory_is_never_read() -> None:
    ours, theirs = os.pipe()
    os.close(theirs)
    frame = packing.pack(row([0, 1]))

    for fd in (ours, os.open("/etc/passwd", os.O_RDONLY)):
        assert lost(read(LentFrame(frame, Handle(fd))))
    assert lost(read(LentFrame(frame, lent_file(b""))))


def test_messages_take_their_files_in_order() -> None:
    """
    Of a batch for two frontends each gets its own; what is inline needs none.
    """
    one, two = lent_file(b"one"), lent_file(b"two")
    small = packing.pack(row(b"small"))
    frames = [LentFrame(packing.pack(row([0, 3])), handle) for handle in (one, two)]
    groups = [f.Group(FRONTEND, frames[0]), f.Group(FRONTEND, small), f.Group(FRONTEND, frames[1])]
    handles = deque([one, two])

    decoded = codec.decode_from_worker(
        codec.encode(f.Replies([f.Reply(7, True, [JOB], groups)])), handles
    )
    assert isinstance(decoded, f.Replies)
    passed_on = [group.frame for group in decoded.replies[0].groups]
    told = codec.decode_to_frontend(codec.encode(f.Answers(passed_on)), deque([one, two]))

    assert not handles
    assert isinstance(told, f.Answers)
    bodies = [
        (read(frame) if isinstance(frame, LentFrame) else unpack_answers(frame))[0].body
        for frame in told.frames
    ]
    assert bodies == [b"one", b"small", b"two"]


@pytest.mark.parametrize("field", [[], [b"a", b"", b""], [[b"a"]], [b"a", 7], [7], 7, None, "text"])
@pytest.mark.parametrize("has_file", [True, False])
def test_what_is_neither_a_frame_nor_a_lent_one_is_refused(field: Any, has_file: bool) -> None:
    handles = deque([lent_file()] if has_file else [])
    with pytest.raises(ProtocolError):
        codec.decode_from_worker(packing.pack([51, 1, True, b"", 1, FRONTEND, field]), handles)
    with pytest.raises(ProtocolError):
        codec.decode_to_frontend(packing.pack([17, field]), handles)


def test_who_lost_a_file_passes_on_that_it_is_lost() -> None:
    """
    Else the next one's would be taken for it.
    """
    one, two = (packing.pack(row([0, 3])) for _ in range(2))
    came = codec.decode_from_worker(
        codec.encode(
            f.Replies(
                [f.Reply(7, True, [JOB], [f.Group(FRONTEND, LentFrame(one, None))])],
            )
        ),
        deque(),
    )
    assert isinstance(came, f.Replies)
    without = came.replies[0].groups[0].frame
    handle = lent_file(b"two")

    told = codec.decode_to_frontend(
        codec.encode(f.Answers([without, LentFrame(two, handle)])), deque([handle])
    )

    assert isinstance(told, f.Answers)
    gone, whole = told.frames
    assert isinstance(gone, LentFrame)
    assert isinstance(whole, LentFrame)
    assert lost(read(gone))
    assert read(whole)[0].body == b"two"
