"""A worker's files: lent to who reads, written anew when nobody does, given back when unused."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_descriptors import open_descriptors

from stoker.wire.frames import Group, Reply
from stoker.wire.lent_bodies import MAX_FILE_BYTES, MIN_BODY_BYTES, LentFrame
from stoker.wire.payloads import Answer, unpack_answers
from stoker.wire.stream import FrameReader, ancillary, new_buffer, pieces
from stoker.worker.answers import LooseFrame, group_rows
from stoker.worker.lender import IDLE_S, MAX_FILES, Lender

KIB = 1 << 10
MIB = 1 << 20
FRONTEND = b"frontend"


@pytest.fixture
def lender() -> Iterator[Lender]:
    made = Lender()
    yield made
    made.close()


def row(body: bytes, number: int = 0, frontend: bytes = FRONTEND) -> list[Any]:
    return [frontend + number.to_bytes(8, "big"), 0, 200, "", "text/plain", ["a", "b"], body]


def loose(*bodies: bytes) -> LooseFrame:
    (group,) = group_rows([row(body, number) for number, body in enumerate(bodies)])
    assert isinstance(group.frame, LooseFrame)
    return group.frame


def lent(lender: Lender, *bodies: bytes, now: float = 0.0) -> LentFrame:
    frame = lender.lend(loose(*bodies), now)
    assert frame is not None
    return frame


def read(frame: LentFrame) -> list[Answer]:
    with frame.opened() as file:
        return unpack_answers(frame.frame, file)


def inode(frame: LentFrame) -> int:
    return os.fstat(frame.fileno()).st_ino


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(
        st.one_of(
            st.integers(0, 100),
            st.integers(MIN_BODY_BYTES - 1, MIN_BODY_BYTES + 1),
            st.integers(MIN_BODY_BYTES, MIB),
        ),
        min_size=1,
        max_size=6,
    ),
    frontends=st.integers(1, 3),
)
def test_answers_are_the_same_lent_or_inline(sizes: list[int], frontends: int) -> None:
    """
    Small and large bodies of one batch, for several frontends: what arrives is what was answered.
    """
    rows = [
        row(os.urandom(size), number, b"frontnd%d" % (number % frontends))
        for number, size in enumerate(sizes)
    ]
    lender = Lender()
    replies, handles = lender.lend_from([Reply(1, True, [], group_rows(rows))], 0.0)

    told: list[Answer] = []
    for _, frame in replies[0].groups:
        if isinstance(frame, LentFrame):
            told += read(frame)
        else:
            assert isinstance(frame, bytes)
            told += unpack_answers(frame)
    lender.close()

    by_id = {answer.job_id: answer for answer in told}
    assert [by_id[one[0]].body for one in rows] == [one[6] for one in rows]
    assert {answer[2:6] for answer in map(tuple_of, told)} == {(200, "", "text/plain", ("a", "b"))}
    assert bool(handles) == any(size >= MIN_BODY_BYTES for size in sizes)


def tuple_of(answer: Answer) -> tuple[Any, ...]:
    return (*answer[:5], answer.headers[0], *answer[6:])


def test_a_file_is_written_anew_only_when_nobody_has_it(lender: Lender) -> None:
    first = lent(lender, b"a" * MIB)
    second = lent(lender, b"b" * MIB)
    assert inode(first) != inode(second)
    before = inode(first)

    assert read(first)[0].body == b"a" * MIB
    third = lent(lender, b"c" * MIB)

    assert inode(third) == before
    assert read(second)[0].body == b"b" * MIB
    assert read(third)[0].body == b"c" * MIB


def test_what_is_on_its_way_in_a_socket_is_not_written_anew(lender: Lender) -> None:
    """
    Neither sender nor reader has it open then: the kernel alone does.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frame = lent(lender, b"a" * MIB)
        ours.sendmsg(pieces(frame.frame), ancillary([frame]))
        before = inode(frame)
        head = frame.frame
        del frame
        assert inode(lent(lender, b"b" * MIB)) != before

        reader = FrameReader(new_buffer())
        reader.takes_handles = True
        assert [bytes(received) for received in reader.read(theirs)] == [head]
        received_frame = LentFrame(head, reader.handles.popleft())
        assert inode(lent(lender, b"c" * MIB)) != before

    assert read(received_frame)[0].body == b"a" * MIB
    assert inode(lent(lender, b"d" * MIB)) in (before, inode(lent(lender, b"e" * MIB)))


def test_a_reader_that_is_killed_gives_its_file_back(lender: Lender) -> None:
    """
    Nobody tells the lender: the kernel closes what the dead had open.
    """
    frame = lent(lender, b"a" * MIB)
    before = inode(frame)
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(told, b"x")
        signal.pause()
        os._exit(0)
    os.close(told)
    assert os.read(ready, 1)
    os.close(ready)
    del frame
    assert inode(lent(lender, b"b" * MIB)) != before

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    first, second = lent(lender, b"c" * MIB), lent(lender, b"d" * MIB)
    assert before in (inode(first), inode(second))


def test_readers_can_only_read(lender: Lender) -> None:
    frame = lent(lender, b"a" * MIB)

    with pytest.raises(OSError):
        os.pwrite(frame.fileno(), b"x", 0)


def test_more_than_a_few_files_are_not_lent_at_a_time(lender: Lender) -> None:
    """
    Then bodies travel inline: where nobody reads, memory is not piled up.
    """
    held = [lent(lender, b"a" * MIN_BODY_BYTES) for _ in range(MAX_FILES)]

    (reply,), handles = lender.lend_from([Reply(1, True, [], group_rows([row(b"b" * MIB)]))], 0.0)

    assert handles == []
    assert isinstance(reply.groups[0].frame, bytes)
    assert unpack_answers(reply.groups[0].frame)[0].body == b"b" * MIB
    del held
    assert lender.lend(loose(b"c" * MIB), 0.0) is not None


def test_what_is_held_stays_below_its_bound_whatever_sizes_come(lender: Lender) -> None:
    for size in (MIB, 100 * MIB, 3 * MIB, 60 * MIB, 130 * MIB, MIB, 200 * MIB, 20 * MIB):
        lender.lend(loose(bytes(size)), 0.0)
        assert lender.size_bytes <= MAX_FILE_BYTES


def test_bodies_above_the_bound_travel_inline(lender: Lender) -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return MAX_FILE_BYTES + 1

    assert lender.lend(LooseFrame(row(Long())), 0.0) is None
    assert lender.size_bytes == 0


@pytest.mark.parametrize("call", ["memfd_create", "ftruncate", "pwrite", "open"])
def test_where_it_cannot_be_done_bodies_travel_inline(
    lender: Lender, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """
    No memory, no descriptor, no /proc: slower, not wrong; and nothing stays open.
    """
    before = open_descriptors()

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(24, "no more")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        replies, handles = lender.lend_from(
            [Reply(1, True, [], group_rows([row(b"a" * MIB)]))], 0.0
        )

    assert handles == []
    assert isinstance(replies[0].groups[0].frame, bytes)
    assert open_descriptors() == before
    assert lender.lend(loose(b"b" * MIB), 0.0) is not None


def test_nodes_of_workflows_answer_inline(lender: Lender) -> None:
    """
    The supervisor looks at the beginning of such a frame, and gives it to the next worker.
    """
    node = b"\x00allwork"
    groups = group_rows([row(b"a" * MIB, frontend=node)])

    (reply,), handles = lender.lend_from([Reply(1, True, [], groups)], 0.0)

    assert handles == []
    assert reply.groups == [Group(node, groups[0].frame.packed())]  # type: ignore[union-attr]


def test_memory_that_is_not_used_goes_back(lender: Lender) -> None:
    assert lender.due_in(0.0) is None
    lent(lender, b"a" * MIB, now=100.0)
    assert lender.due_in(100.0) == IDLE_S

    lender.run(100.0 + IDLE_S - 0.1)
    assert lender.size_bytes
    lender.run(100.0 + IDLE_S)

    assert lender.size_bytes == 0
    assert lender.due_in(200.0) is None


def test_who_reads_keeps_what_a_lender_has_given_up(lender: Lender) -> None:
    frame = lent(lender, b"a" * MIB)

    lender.close()

    assert read(frame)[0].body == b"a" * MIB


def test_two_threads_of_a_reader_and_a_lender_never_mix(lender: Lender) -> None:
    """
    A thousand bodies through one socket, read while the next ones are written.
    """
    ours, theirs = socket.socketpair()
    wrong: list[int] = []

    def hear() -> None:
        reader = FrameReader(new_buffer())
        reader.takes_handles = True
        number = 0
        while number < 1000:
            select.select([theirs], [], [])
            for received in reader.read(theirs):
                (answer,) = read(LentFrame(bytes(received), reader.handles.popleft()))
                if answer.body != number.to_bytes(8, "big") * (MIN_BODY_BYTES // 8):
                    wrong.append(number)
                number += 1

    thread = threading.Thread(target=hear)
    thread.start()
    number = 0
    while number < 1000:
        body = number.to_bytes(8, "big") * (MIN_BODY_BYTES // 8)
        frame = lender.lend(loose(body), 0.0)
        if frame is not None:
            ours.sendmsg(pieces(frame.frame), ancillary([frame]))
            number += 1
    thread.join()
    ours.close()
    theirs.close()

    assert wrong == []
