"""The arena: no two bodies share a byte, no reader gets another's, nothing stays behind."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.errors import Cancelled, ProtocolError
from stoker.wire import arena_reader
from stoker.wire.arena import IDLE_SWEEPS, MIN_BODY_BYTES, Arena, Slot
from stoker.wire.arena_folder import arena_folder, remove_arenas
from stoker.wire.arena_layout import Descriptor
from stoker.wire.arena_reader import ArenaReader

FRONTEND = b"\x01frontnd"
OTHER = b"\x03another"
KIB = 1 << 10
MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In the real place: what the kernel does for tmpfs is part of the promise."""
    folder = arena_folder(tmp_path)
    yield folder
    remove_arenas(folder)


@pytest.fixture
def arena(folder: Path) -> Iterator[Arena]:
    arena = Arena(folder, FRONTEND, 64 * MIB)
    yield arena
    arena.close()


@pytest.fixture
def reader(folder: Path) -> Iterator[ArenaReader]:
    reader = ArenaReader(folder)
    yield reader
    reader.close()


def taken(arena: Arena, length: int) -> Slot:
    slot = arena.take(length)
    assert slot is not None
    return slot


def filled(arena: Arena, seed: int, length: int = 100 * KIB) -> Slot:
    slot = taken(arena, length)
    slot.view[:] = pattern(seed, length)
    return slot


def pattern(seed: int, length: int) -> bytes:
    word = hashlib.sha256(seed.to_bytes(8, "big")).digest()
    return (word * (length // len(word) + 1))[:length]


# -- bodies --------------------------------------------------------------------------


def test_a_reader_gets_the_very_bytes_as_its_own_copy(arena: Arena, reader: ArenaReader) -> None:
    """Handlers may change a bytearray in place; that must not reach the arena."""
    slot = filled(arena, 1, MIB + 1)

    body = reader.read(FRONTEND, slot.descriptor)
    body[0] ^= 0xFF

    assert type(body) is bytearray
    assert bytes(slot.view) == pattern(1, MIB + 1)
    assert reader.read(FRONTEND, slot.descriptor) == pattern(1, MIB + 1)


def test_small_bodies_are_left_to_travel_inline(arena: Arena) -> None:
    """Below the crossover a descriptor costs more than the bytes."""
    assert arena.take(MIN_BODY_BYTES - 1) is None
    assert taken(arena, MIN_BODY_BYTES).view.nbytes == MIN_BODY_BYTES


def test_a_freed_slot_is_not_read(arena: Arena, reader: ArenaReader) -> None:
    """Nobody waits for the answer, and somebody else's body may lie there next."""
    slot = filled(arena, 1)
    reader.read(FRONTEND, slot.descriptor)

    slot.free()

    with pytest.raises(Cancelled):
        reader.read(FRONTEND, slot.descriptor)


def test_a_reused_slot_is_read_by_its_new_user_alone(arena: Arena, reader: ArenaReader) -> None:
    """Same place, same length: only the generation tells the bodies apart."""
    old = filled(arena, 1)
    old.free()
    new = filled(arena, 2)
    assert new.descriptor[:3] == old.descriptor[:3]

    with pytest.raises(Cancelled):
        reader.read(FRONTEND, old.descriptor)

    assert reader.read(FRONTEND, new.descriptor) == pattern(2, len(new))


@pytest.mark.parametrize("is_reused", [False, True])
def test_a_slot_freed_during_the_copy_is_noticed(
    arena: Arena, reader: ArenaReader, monkeypatch: pytest.MonkeyPatch, is_reused: bool
) -> None:
    """The owner frees without asking; a torn body must not reach a handler."""
    slot = filled(arena, 1)
    look = arena_reader._read_generation
    looks: list[int] = []

    def look_and_lose(mapped: mmap.mmap, offset: int) -> int:
        found = look(mapped, offset)
        looks.append(found)
        if len(looks) == 1:  # after the first look, before the copy
            slot.free()
            if is_reused:
                filled(arena, 2)
        return found

    monkeypatch.setattr(arena_reader, "_read_generation", look_and_lose)

    with pytest.raises(Cancelled):
        reader.read(FRONTEND, slot.descriptor)

    assert looks[0] == slot.descriptor.generation


def test_no_body_can_pass_for_a_generation(arena: Arena, reader: ArenaReader) -> None:
    """A client who guesses the number must not make a worker read over slot borders."""
    first, second = filled(arena, 1, 256 * KIB), filled(arena, 2, 256 * KIB)
    stale = second.descriptor
    first.free()
    second.free()
    large = taken(arena, 512 * KIB)
    assert large.descriptor.offset < stale.offset < large.descriptor.offset + 512 * KIB
    word = stale.generation.to_bytes(8, "little")

    large.view[:] = word * (512 * KIB // 8)

    with pytest.raises(Cancelled):
        reader.read(FRONTEND, stale)


def test_freeing_twice_frees_once(arena: Arena, reader: ArenaReader) -> None:
    """An exchange may end in more than one way; its neighbour must not lose its slot."""
    slot = filled(arena, 1)
    slot.free()
    successor = filled(arena, 2)

    slot.free()

    assert reader.read(FRONTEND, successor.descriptor) == pattern(2, len(successor))
    assert filled(arena, 3).descriptor.offset != successor.descriptor.offset


def test_frontends_do_not_see_each_others_bodies(
    folder: Path, arena: Arena, reader: ArenaReader
) -> None:
    """Both count segments and generations from the same number."""
    other = Arena(folder, OTHER, 64 * MIB)
    mine, theirs = filled(arena, 1), filled(other, 2)
    assert mine.descriptor == theirs.descriptor

    assert reader.read(FRONTEND, mine.descriptor) == pattern(1, len(mine))
    assert reader.read(OTHER, theirs.descriptor) == pattern(2, len(theirs))
    other.close()


# -- room ----------------------------------------------------------------------------

SIZES = st.integers(MIN_BODY_BYTES, 700 * KIB)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(st.tuples(SIZES, st.integers(0, 9)), max_size=40),
    max_mib=st.integers(1, 4),
)
def test_slots_never_overlap_whatever_is_taken_and_freed(
    folder: Path, steps: list[tuple[int, int]], max_mib: int
) -> None:
    """The allocator's promises, for any order: disjoint, bounded, and whole again at the end."""
    arena = Arena(folder, FRONTEND, max_mib * MIB)
    reader = ArenaReader(folder)
    held: dict[int, Slot] = {}
    try:
        for number, (length, choice) in enumerate(steps):
            slot = arena.take(length)
            if slot is not None:
                slot.view[:] = pattern(number, length)
                held[number] = slot
            if held and (choice < 4 or slot is None):
                held.pop(sorted(held)[choice % len(held)]).free()
            assert arena.size_bytes <= max_mib * MIB
            for other, kept in held.items():
                assert bytes(kept.view) == pattern(other, len(kept))
        for other, kept in held.items():
            assert reader.read(FRONTEND, kept.descriptor) == pattern(other, len(kept))
            kept.free()
        assert arena.is_unused
    finally:
        reader.close()
        arena.close()


@pytest.mark.parametrize("length", [MIB, 16 * MIB, 16 * MIB + 1, 40 * MIB])
def test_a_body_larger_than_a_segment_gets_one_of_its_own(
    arena: Arena, reader: ArenaReader, length: int
) -> None:
    """Whatever max_request_size allows must fit if the arena is large enough."""
    slot = taken(arena, length)

    slot.view[-1] = 7

    assert reader.read(FRONTEND, slot.descriptor)[-1] == 7


def test_an_arena_that_is_full_says_so_and_has_room_again_later(folder: Path) -> None:
    """Full is no error: the body travels inline."""
    arena = Arena(folder, FRONTEND, MIB)
    slots = [arena.take(400 * KIB) for _ in range(3)]
    assert [slot is None for slot in slots] == [False, False, True]

    assert slots[0] is not None
    slots[0].free()

    assert arena.take(400 * KIB) is not None
    arena.close()


@pytest.mark.parametrize("max_bytes", [0, MIN_BODY_BYTES])
def test_an_arena_without_room_takes_nothing_and_makes_no_file(
    folder: Path, max_bytes: int
) -> None:
    """0 is the off switch."""
    arena = Arena(folder, FRONTEND, max_bytes)

    assert arena.take(MIN_BODY_BYTES) is None

    assert not folder.exists() or not list(folder.iterdir())


def test_full_shared_memory_means_inline_and_is_asked_again_once_a_second(
    folder: Path, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reserving fails at the start, not as SIGBUS in the middle; failing is dear, so rarely."""
    asked: list[int] = []
    reserve = os.posix_fallocate

    def full(fd: int, start: int, size: int) -> None:
        asked.append(size)
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", full)

    assert [arena.take(MIB), arena.take(MIB)] == [None, None]
    assert len(asked) == 1
    assert list(folder.iterdir()) == []

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    arena.sweep()
    assert arena.take(MIB) is not None


def test_half_of_shared_memory_is_left_to_others(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers often have 64 MiB of it, and data loaders of handlers live there too."""
    total = 64 * MIB

    def small(path: Any) -> os.statvfs_result:
        pages, free = total // 4096, (total - 20 * MIB) // 4096
        return os.statvfs_result((4096, 4096, pages, free, free, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", small)

    assert arena.take(MIB) is None


def test_a_folder_of_somebody_elses_is_not_used(
    folder: Path, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/shm is open to every user of the machine, and the name can be guessed."""
    folder.mkdir()
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)

    assert arena.take(MIB) is None

    assert list(folder.iterdir()) == []


def test_idle_segments_go_back_and_busy_ones_stay(
    folder: Path, arena: Arena, reader: ArenaReader
) -> None:
    """A burst must not keep memory for ever, nor a lull cost the next burst its segments."""
    kept = filled(arena, 1, 15 * MIB)
    burst = [filled(arena, seed, 15 * MIB) for seed in (2, 3)]
    assert len(list(folder.iterdir())) == 3
    for slot in burst:
        slot.free()

    for _ in range(IDLE_SWEEPS - 1):
        arena.sweep()
    assert len(list(folder.iterdir())) == 3
    arena.sweep()

    assert len(list(folder.iterdir())) == 1
    assert reader.read(FRONTEND, kept.descriptor) == pattern(1, len(kept))


# -- what a reader is told -------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 100 * KIB),
        (4096 * 8 - 4096, 100),
        (1, 100),
        (-4096, 100),
        (1 << 62, 100),
        (4096 * 8, 16 * MIB),
        (4096 * 8, -1),
        (16 * MIB, 1),
    ],
)
def test_a_descriptor_leads_nowhere_but_into_bodies(
    arena: Arena, reader: ArenaReader, offset: int, length: int
) -> None:
    """Payloads are written by us, but a worker believes nobody."""
    good = filled(arena, 1).descriptor
    assert good.offset == 4096 * 8

    with pytest.raises(ProtocolError):
        reader.read(FRONTEND, Descriptor(good.segment, offset, length, good.generation))


def test_an_unknown_segment_or_frontend_is_a_client_that_left(
    arena: Arena, reader: ArenaReader
) -> None:
    """The frontend has died and its files are removed: nobody waits."""
    good = filled(arena, 1).descriptor

    with pytest.raises(Cancelled):
        reader.read(FRONTEND, good._replace(segment=99))
    with pytest.raises(Cancelled):
        reader.read(OTHER, good)


def test_generation_zero_is_never_valid(arena: Arena, reader: ArenaReader) -> None:
    """It is what every page without a slot says."""
    good = filled(arena, 1).descriptor

    with pytest.raises((Cancelled, ProtocolError)):
        reader.read(FRONTEND, Descriptor(good.segment, good.offset + MIB, 100, 0))


def test_a_reader_lets_go_of_what_is_removed(
    folder: Path, arena: Arena, reader: ArenaReader
) -> None:
    """Segments come and go for months; a worker must not hold them all."""
    for seed in range(5):
        slot = filled(arena, seed)
        reader.read(FRONTEND, slot.descriptor)
        slot.free()
        for _ in range(IDLE_SWEEPS):
            arena.sweep()

    slot = filled(arena, 9)
    reader.read(FRONTEND, slot.descriptor)

    assert len(reader._maps) == 1


# -- the end ---------------------------------------------------------------------------


def test_closing_leaves_no_file_though_slots_are_out(folder: Path, arena: Arena) -> None:
    """A frontend that stops may still have connections."""
    slot = filled(arena, 1)

    arena.close()
    slot.free()

    assert not folder.exists()
    assert arena.take(MIB) is None


def test_a_dead_frontends_files_are_removed_and_its_bodies_unreadable(
    folder: Path, arena: Arena, reader: ArenaReader
) -> None:
    """Workers have them mapped, so removing names alone would free no memory."""
    other = Arena(folder, OTHER, MIB)
    kept, lost = filled(other, 1), filled(arena, 2)
    reader.read(FRONTEND, lost.descriptor)

    remove_arenas(folder, FRONTEND)

    with pytest.raises(Cancelled):
        reader.read(FRONTEND, lost.descriptor)
    assert reader.read(OTHER, kept.descriptor) == pattern(1, len(kept))
    other.close()


def test_removing_everything_removes_the_folder_and_may_be_repeated(
    folder: Path, arena: Arena
) -> None:
    """Start and stop both do it."""
    filled(arena, 1)

    remove_arenas(folder)
    remove_arenas(folder)

    assert not folder.exists()


def test_every_process_of_a_server_finds_the_same_folder(tmp_path: Path) -> None:
    """A worker derives it from the address of its socket, the others from the settings."""
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")

    assert arena_folder(tmp_path / "run") == arena_folder(tmp_path / "link")
    assert arena_folder(tmp_path / "run") != arena_folder(tmp_path)
    assert arena_folder(tmp_path).parent == Path("/dev/shm")
