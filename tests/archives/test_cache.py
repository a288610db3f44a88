from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.archives.cache import ArchiveCache, CachedArchive, directory_model
from stoker.archives.hash_index import HashIndex
from stoker.archives.locks import LockTimeout, take_lock, take_lock_nowait
from stoker.archives.members import UnpackLimits
from stoker.errors import ArchiveUnreadable

Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def cache(tmp_path: Path) -> ArchiveCache:
    return ArchiveCache(tmp_path / "cache", settle_s=0)


@pytest.fixture
def mar(archives: Any, store: Path) -> Path:
    path = store / "demo.mar"
    path.write_bytes(archives.mar())
    return path


def acquire(cache: ArchiveCache, path: Path) -> CachedArchive:
    with path.open("rb") as file:
        return cache.acquire(file, path.name)


def names(cache_dir: Path) -> set[str]:
    return {path.name for path in (cache_dir / "archives").iterdir()}


def test_the_same_content_is_unpacked_once(
    cache: ArchiveCache, mar: Path, store: Path, tree: Tree
) -> None:
    """Two names, one content, one copy."""
    (store / "other.mar").write_bytes(mar.read_bytes())

    first, second = acquire(cache, mar), acquire(cache, store / "other.mar")

    assert first == second
    assert hashlib.sha256(mar.read_bytes()).hexdigest() == first.sha256
    assert {"handler.py", "MAR-INF/MANIFEST.json"} == set(tree(first.path))
    assert cache.statistics().unpacked == 1


def test_a_changed_archive_gets_a_copy_of_its_own(
    cache: ArchiveCache, mar: Path, archives: Any
) -> None:
    """A running worker's files never change under it."""
    old = acquire(cache, mar)
    mar.write_bytes(archives.mar(b"new = 1\n"))
    new = acquire(cache, mar)

    assert old.path != new.path
    assert b"new" not in (old.path / "handler.py").read_bytes()
    assert b"new" in (new.path / "handler.py").read_bytes()


def test_a_known_file_is_not_read_again(cache: ArchiveCache, mar: Path, tmp_path: Path) -> None:
    """Hashing gigabytes at every registration would cost seconds."""
    acquire(cache, mar)
    acquire(cache, mar)
    successor = ArchiveCache(tmp_path / "cache", settle_s=0)
    acquire(successor, mar)

    assert (cache.hashes.hashed, successor.hashes.hashed) == (1, 0)
    assert successor.statistics().unpacked == 0


def test_a_file_changed_in_place_is_read_again(tmp_path: Path) -> None:
    """Same inode, same size, another content."""
    index = HashIndex(tmp_path / "hashes.json", settle_s=0)
    path = tmp_path / "x"
    path.write_bytes(b"one")
    with path.open("rb") as file:
        index.hash_of(file)
    path.write_bytes(b"two")

    with path.open("rb") as file:
        assert hashlib.sha256(b"two").hexdigest() == index.hash_of(file)


def test_a_file_touched_just_now_is_not_remembered(tmp_path: Path) -> None:
    """It may change again within one tick of the file system's clock."""
    index = HashIndex(tmp_path / "hashes.json", settle_s=60)
    path = tmp_path / "x"
    path.write_bytes(b"one")
    for _ in range(2):
        with path.open("rb") as file:
            index.hash_of(file)

    assert index.hashed == 2


@pytest.mark.parametrize("rubbish", [b"", b"[]", b"{", b'{"a": "b"}', b"\xff" * 100])
def test_a_damaged_index_costs_time_only(
    cache: ArchiveCache, mar: Path, tmp_path: Path, rubbish: bytes
) -> None:
    """It is a memory, not a truth."""
    (tmp_path / "cache" / "hashes.json").write_bytes(rubbish)

    assert acquire(cache, mar).path.is_dir()


def test_a_bad_archive_leaves_nothing_behind(
    cache: ArchiveCache, store: Path, tmp_path: Path, archives: Any
) -> None:
    """Neither a copy nor half of one."""
    bad = store / "bad.mar"
    bad.write_bytes(archives.zip({"fine": b"1", "../evil": b"2"}))

    for _ in range(2):
        with pytest.raises(ArchiveUnreadable, match=r"^Failed to save model: bad\.mar$"):
            acquire(cache, bad)

    assert all(name.endswith(".lock") for name in names(tmp_path / "cache"))


def test_threads_share_one_unpacking(cache: ArchiveCache, mar: Path) -> None:
    """Four registrations at once."""
    found: list[CachedArchive] = []
    threads = [threading.Thread(target=lambda: found.append(acquire(cache, mar))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(found) == 4
    assert len(set(found)) == 1
    assert cache.statistics().unpacked == 1


def _acquire_in_child(cache_dir: str, path: str, barrier: Any, results: Any) -> None:
    cache = ArchiveCache(Path(cache_dir), settle_s=0)
    barrier.wait(20)
    found = acquire(cache, Path(path))
    whole = len(list(found.path.iterdir()))
    results.put((str(found.path), whole, cache.statistics().unpacked))


def test_processes_share_one_unpacking(tmp_path: Path, store: Path, archives: Any) -> None:
    """A dying supervisor and its successor may unpack at the same time."""
    path = store / "large.mar"
    members = {f"f{n}": os.urandom(20_000) for n in range(100)}
    path.write_bytes(archives.zip(members))
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    children = [
        context.Process(
            target=_acquire_in_child, args=(str(tmp_path / "cache"), str(path), barrier, results)
        )
        for _ in range(4)
    ]
    for child in children:
        child.start()
    rows = [results.get(timeout=30) for _ in children]
    for child in children:
        child.join(20)

    assert len({row[0] for row in rows}) == 1
    assert {100} == {row[1] for row in rows}
    assert sum(row[2] for row in rows) == 1


def test_a_copy_that_lost_files_is_made_again(
    cache: ArchiveCache, mar: Path, tmp_path: Path, tree: Tree
) -> None:
    """After a power cut files may be shorter than they were written."""
    found = acquire(cache, mar)
    cache.release(found.sha256)
    (found.path / "handler.py").write_bytes(b"")

    successor = ArchiveCache(tmp_path / "cache", settle_s=0)

    assert successor.find(found.sha256) is None
    assert b"handle" in tree(acquire(successor, mar).path)["handler.py"]


@pytest.mark.parametrize("name", ["x.mar", "x.tar.gz"])
def test_a_whole_copy_is_whole_for_a_successor_too(
    cache: ArchiveCache, store: Path, tmp_path: Path, archives: Any, name: str
) -> None:
    """What is remembered as its size is that of its files, without padding."""
    path = store / name
    members = {"d/a": b"1", "d/b": b"22"}
    path.write_bytes(
        archives.zip(members) if name == "x.mar" else archives.tar(list(members.items()))
    )
    found = acquire(cache, path)
    cache.release(found.sha256)

    successor = ArchiveCache(tmp_path / "cache", settle_s=0)

    assert found == successor.find(found.sha256)
    assert successor.statistics().unpacked == 0


def test_files_a_handler_adds_are_no_damage(cache: ArchiveCache, mar: Path, tmp_path: Path) -> None:
    """Many handlers unpack weights beside themselves."""
    found = acquire(cache, mar)
    cache.release(found.sha256)
    (found.path / "weights.bin").write_bytes(b"x" * 100)

    successor = ArchiveCache(tmp_path / "cache", settle_s=0)

    assert found == successor.find(found.sha256)


def test_what_a_killed_process_left_is_cleaned(cache: ArchiveCache, tmp_path: Path) -> None:
    """Half an unpacking is of no use to anyone, unless its builder lives."""
    root = tmp_path / "cache" / "archives"
    dead, alive = "a" * 64, "b" * 64
    for sha256 in (dead, alive):
        (root / f".unpack-{sha256}-1-1" / "model").mkdir(parents=True)
    handle = take_lock_nowait(root / f"{alive}.lock")
    assert handle is not None

    cache.clean()

    os.close(handle)
    assert f".unpack-{dead}-1-1" not in names(tmp_path / "cache")
    assert f".unpack-{alive}-1-1" in names(tmp_path / "cache")


def test_prune_takes_unused_copies_oldest_first(
    cache: ArchiveCache, store: Path, tmp_path: Path, archives: Any
) -> None:
    """A copy in use stays, whatever the limit says."""
    found = []
    for n in range(3):
        path = store / f"m{n}.mar"
        path.write_bytes(archives.zip({"x": bytes([n]) * 1000}))
        found.append(acquire(cache, path))
    cache.release(found[1].sha256)
    cache.release(found[2].sha256)
    marker = tmp_path / "cache" / "archives" / found[2].sha256 / "complete.json"
    os.utime(marker, (1, 1))

    freed_first = cache.prune(2000)
    left_first = [entry.path.exists() for entry in found]
    freed_then = cache.prune(0)

    assert (freed_first, left_first) == (1000, [True, True, False])
    assert (freed_then, [e.path.exists() for e in found]) == (1000, [True, False, False])
    assert {name[:64] for name in names(tmp_path / "cache")} == {found[0].sha256}


def test_prune_respects_the_users_of_other_processes(
    cache: ArchiveCache, mar: Path, tmp_path: Path
) -> None:
    """`stoker` on the command line must not pull a model from under the server."""
    found = acquire(cache, mar)
    other = ArchiveCache(tmp_path / "cache", settle_s=0)

    assert other.prune(0) == 0
    cache.release(found.sha256)
    assert other.prune(0) > 0


def test_a_copy_is_used_until_the_last_one_releases_it(cache: ArchiveCache, mar: Path) -> None:
    """Two versions may be the same archive."""
    found = acquire(cache, mar)
    acquire(cache, mar)
    cache.release(found.sha256)

    assert cache.prune(0) == 0
    cache.release(found.sha256)
    cache.release(found.sha256)
    assert cache.prune(0) > 0


@pytest.mark.parametrize("sha256", ["", "..", "../../etc", "A" * 64, "0" * 64])
def test_an_unknown_hash_finds_nothing(cache: ArchiveCache, sha256: str) -> None:
    """The hash may come from a journal; it is a name, never a path."""
    assert cache.find(sha256) is None


def test_limits_are_those_given(tmp_path: Path, mar: Path) -> None:
    """The settings reach the unpacking."""
    cache = ArchiveCache(tmp_path / "cache", UnpackLimits(max_files=1))

    with pytest.raises(ArchiveUnreadable) as caught:
        acquire(cache, mar)

    assert caught.value.details["reason"] == "too many members"


def test_waiting_for_a_lock_has_an_end(tmp_path: Path) -> None:
    """A stuck neighbour becomes an error, not a hang."""
    handle = take_lock_nowait(tmp_path / "x.lock")
    assert handle is not None

    with pytest.raises(LockTimeout):
        take_lock(tmp_path / "x.lock", timeout_s=0.05)
    with pytest.raises(LockTimeout):
        take_lock(tmp_path / "x.lock", timeout_s=60, should_stop=lambda: True)

    os.close(handle)


def test_a_removed_lock_file_locks_nobody_out(tmp_path: Path) -> None:
    """Who removes an entry removes its lock file too."""
    first = take_lock_nowait(tmp_path / "x.lock")
    assert first is not None
    (tmp_path / "x.lock").unlink()
    second = take_lock_nowait(tmp_path / "x.lock")

    assert second is not None
    for handle in (first, second):
        os.close(handle)


def test_a_lone_inner_folder_is_the_model(tmp_path: Path) -> None:
    """Contract 3.2.6."""
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    assert tmp_path / "outer" / "inner" == directory_model(tmp_path / "outer")

    (tmp_path / "outer" / "file").touch()
    assert tmp_path / "outer" == directory_model(tmp_path / "outer")
