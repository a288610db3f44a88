"""What is opened to the group of the workers' user, and what stays closed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from stoker.archives.readers import let_group_read
from stoker.wire.arena import MIN_BODY_BYTES, Arena
from stoker.wire.arena_folder import arena_folder, hold_arenas, let_go_of_arenas, remove_arenas
from stoker.wire.arena_reader import ArenaReader
from stoker.wire.runtime_dir import prepare_folder

FRONTEND = b"frontend"
#: Giving a file to a group that one is not in needs a right; one's own always goes.
GROUP = 65534 if os.geteuid() == 0 else os.getegid()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def tree(tmp_path) -> Path:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    for name, bits in (("plain", 0o600), ("run", 0o700), ("inner/deep", 0o600)):
        (folder / name).write_text("x")
        (folder / name).chmod(bits)
    (tmp_path / "outside").write_text("x")
    (tmp_path / "outside").chmod(0o600)
    (folder / "link").symlink_to(tmp_path / "outside")
    return folder


def test_a_group_may_read_everything_in_a_tree_and_nothing_beside_it(tree):
    """
    Nobody else may, nobody may write, and a link opens nothing.
    """
    let_group_read(tree, GROUP)

    modes = {path.name: mode(path) for path in (tree, *tree.rglob("*")) if not path.is_symlink()}
    assert modes == {"model": 0o750, "inner": 0o750, "plain": 0o640, "run": 0o750, "deep": 0o640}
    assert {path.stat().st_gid for path in (tree, *tree.glob("[!l]*"))} == {GROUP}
    assert mode(tree.parent / "outside") == 0o600


def test_it_is_done_once(tree):
    """
    A model with many files is loaded by many workers.
    """
    let_group_read(tree, GROUP)
    (tree / "plain").chmod(0o600)

    let_group_read(tree, GROUP)

    assert mode(tree / "plain") == 0o600


def test_a_folder_may_be_passed_where_workers_are_others_and_nowhere_else(tmp_path):
    """
    Passing is not looking.
    """
    folder = tmp_path / "run"
    folder.mkdir()
    for bits, is_kept in ((0o711, True), (0o710, True), (0o755, False), (0o744, False)):
        folder.chmod(bits)
        prepare_folder(folder, may_be_passed=True)
        assert mode(folder) == (bits if is_kept else 0o700)
        prepare_folder(folder)
        assert mode(folder) == 0o700


@pytest.fixture
def arenas(tmp_path):
    folder = arena_folder(tmp_path)
    yield folder
    let_go_of_arenas(folder)
    remove_arenas(folder)
    assert not folder.exists()


def test_a_held_folder_outlives_every_frontend(arenas):
    """
    A sandbox shows this folder; one of the same name that is made later would be another.
    """
    hold_arenas(arenas)
    inode = arenas.stat().st_ino
    arena = Arena(arenas, FRONTEND, 64 << 20)
    slot = arena.take(MIN_BODY_BYTES)
    assert slot is not None
    slot.free()

    arena.close()
    remove_arenas(arenas)
    remove_arenas(arenas, FRONTEND)
    hold_arenas(arenas)

    assert arenas.stat().st_ino == inode
    let_go_of_arenas(arenas)
    assert not arenas.exists()


def test_files_for_a_group_are_for_that_group_also_those_to_come(arenas):
    """
    The frontend makes them, and need not know whom they are for.
    """
    early = Arena(arenas, b"earlier!", 64 << 20)
    first = early.take(MIN_BODY_BYTES)
    hold_arenas(arenas, GROUP)
    late = Arena(arenas, FRONTEND, 64 << 20)
    second = late.take(MIN_BODY_BYTES)
    assert first is not None
    assert second is not None

    files = [path for path in arenas.iterdir() if path.is_file()]

    assert len(files) == 2
    assert mode(arenas) == 0o710
    assert {(mode(path), path.stat().st_gid) for path in files} == {(0o640, GROUP)}
    second.view[:2] = b"hi"
    assert ArenaReader(arenas).read(FRONTEND, second.descriptor)[:2] == b"hi"
    for slot, arena in ((first, early), (second, late)):
        slot.free()
        arena.close()
