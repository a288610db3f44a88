from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stoker.archives.members import BadMember, UnpackLimits, member_parts
from stoker.archives.unpack import unpack
from stoker.errors import ArchiveUnreadable

Tree = Callable[[Path], dict[str, bytes]]
SMALL = UnpackLimits(
    max_files=50,
    max_unpacked_bytes=4 << 20,
    max_member_bytes=2 << 20,
    max_ratio=100,
    free_bytes=64 << 10,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "unpacked"


def refuse(data: bytes, root: Path, limits: UnpackLimits = SMALL) -> str:
    """Unpack what must be refused; the reason."""
    with pytest.raises(ArchiveUnreadable) as caught:
        unpack(io.BytesIO(data), root, "x.mar", limits)
    assert caught.value.message == "Failed to save model: x.mar"
    return str(caught.value.details["reason"])


def one_info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


# -- what works ---------------------------------------------------------------


def test_a_mar_unpacks_as_it_was_packed(archives: Any, root: Path, tree: Tree) -> None:
    """The everyday case; nothing is stripped from a zip."""
    data = archives.zip({"MAR-INF/MANIFEST.json": b"{}", "lib/a.py": b"a", "b.bin": b""})

    contents = unpack(io.BytesIO(data), root, "x.mar", SMALL)

    assert tree(root) == {"MAR-INF/MANIFEST.json": b"{}", "lib/a.py": b"a", "b.bin": b""}
    assert (contents.files, contents.total_bytes) == (3, 3)


@pytest.mark.parametrize("gz", [True, False])
def test_a_tar_loses_its_top_folder(archives: Any, root: Path, tree: Tree, gz: bool) -> None:
    """The peer drops the first part of every name (contract 3.2.5)."""
    data = archives.tar([("demo/MAR-INF/MANIFEST.json", b"{}"), ("demo/demo/x", b"1")], gz=gz)

    contents = unpack(io.BytesIO(data), root, "x.tar.gz", SMALL)

    assert (contents.files, contents.total_bytes) == (2, 3)
    assert tree(root) == {"MAR-INF/MANIFEST.json": b"{}", "demo/x": b"1"}


@pytest.mark.parametrize(
    ("names", "unpacked"),
    [
        (["demo/h.py", "demo/lib/x", "._demo"], ["._demo", "h.py", "lib/x"]),
        (["a/h.py", "b/x"], ["h.py", "x"]),
        (["./MAR-INF/MANIFEST.json", "./h.py"], ["MAR-INF/MANIFEST.json", "h.py"]),
        (["./lib/x", "./h.py"], ["h.py", "lib/x"]),
        (["MAR-INF/MANIFEST.json", "lib/x"], ["MAR-INF/MANIFEST.json", "lib/x"]),
        (["./demo/h.py", "./demo/lib/x"], ["h.py", "lib/x"]),
    ],
)
def test_the_first_part_is_dropped_only_where_that_makes_sense(
    archives: Any, root: Path, tree: Tree, names: list[str], unpacked: list[str]
) -> None:
    """What the peer can serve unpacks as there; what it would tear apart stays whole."""
    unpack(io.BytesIO(archives.tar([(name, b"") for name in names])), root, "x", SMALL)

    assert unpacked == sorted(tree(root))


def test_modes_are_ours(archives: Any, root: Path) -> None:
    """Nothing setuid, nothing for others, scripts stay executable."""
    info = one_info("demo/run.sh")
    info.mode = 0o6777
    data = archives.tar([(info, b"#!"), ("demo/x", b"")])

    unpack(io.BytesIO(data), root, "x", SMALL)

    modes = [stat.S_IMODE(path.stat().st_mode) for path in (root / "run.sh", root / "x", root)]
    assert modes == [0o700, 0o600, 0o700]


def test_the_content_decides_not_the_name(archives: Any, root: Path, tree: Tree) -> None:
    """A tar.gz that somebody called .mar works."""
    unpack(io.BytesIO(archives.tar([("demo/x", b"1")])), root, "x.mar", SMALL)

    assert tree(root) == {"x": b"1"}


# -- names --------------------------------------------------------------------

HOSTILE_NAMES = [
    "../evil",
    "a/../../evil",
    "/etc/evil",
    "a\\..\\evil",
    "..\\evil",
    "C:/evil",
    "a/..",
    "x" * 300,
    "a/" * 100 + "x",
    "line\nbreak",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_lead_out_are_refused(
    archives: Any, root: Path, tmp_path: Path, name: str
) -> None:
    """Zip slip, CVE-2023-48299."""
    assert "name" in refuse(archives.zip({"ok": b"", name: b"x"}), root)
    assert "name" in refuse(archives.tar([("d/ok", b""), (name, b"x")]), root.with_name("tar"))
    assert not list(tmp_path.rglob("evil*"))


@given(name=st.text(st.characters(codec="utf-8"), max_size=30))
@example("a/./b//c")
@example("..")
def test_safe_parts_always_stay_inside(name: str) -> None:
    """Whatever is not refused is a chain of plain folder names."""
    try:
        parts = member_parts(name)
    except BadMember:
        return

    path = os.path.normpath(os.path.join("/root", *parts))
    assert path == "/root" or path.startswith("/root/")
    assert all(part not in ("", ".", "..") and "/" not in part for part in parts)


@pytest.mark.parametrize(
    "names",
    [["a", "a"], ["a", "./a"], ["a", "a/b"], ["a/b", "a"], ["a/b", "a//b"]],
)
def test_no_member_overwrites_another(archives: Any, root: Path, names: list[str]) -> None:
    """The second of two equal names is how a checked file is replaced by another."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")
        for name in names:
            archive.writestr(name, b"x")

    assert "same name" in refuse(buffer.getvalue(), root)
    tar = archives.tar([(f"top/{name}", b"x") for name in names])
    assert "same name" in refuse(tar, root.with_name("tar"))


def test_top_folders_that_would_merge_are_refused(archives: Any, root: Path) -> None:
    """Dropping the first part must not overwrite either."""
    assert "same name" in refuse(archives.tar([("a/x", b"1"), ("b/x", b"2")]), root)


# -- links and devices --------------------------------------------------------


@pytest.mark.parametrize(
    "info",
    [
        one_info("d/l", tarfile.SYMTYPE, "/etc/passwd"),
        one_info("d/l", tarfile.SYMTYPE, "ok"),
        one_info("d/l", tarfile.LNKTYPE, "d/ok"),
        one_info("d/l", tarfile.CHRTYPE),
        one_info("d/l", tarfile.BLKTYPE),
        one_info("d/l", tarfile.FIFOTYPE),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(
    archives: Any, root: Path, info: tarfile.TarInfo
) -> None:
    """A link to outside, then a member written through it: no link, no problem."""
    reason = refuse(archives.tar([("d/ok", b""), (info, b"")]), root)

    assert reason == "a member is a link or a device"


def test_a_sparse_member_is_refused(root: Path) -> None:
    """A sparse map claims any size for nothing."""
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = one_info("d/x")
        info.size = 2
        info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999"}
        archive.addfile(info, io.BytesIO(b"ab"))

    assert refuse(buffer.getvalue(), root) == "a member is a link or a device"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused(root: Path, kind: int) -> None:
    """A zip carries Unix modes too."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.create_system = 3
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")

    assert refuse(buffer.getvalue(), root) == "a member is a link or a device"


# -- bombs --------------------------------------------------------------------


def test_a_bomb_is_noticed_while_writing(archives: Any, root: Path) -> None:
    """Megabytes of zeros from a kilobyte: the ratio ends it early."""
    bomb = archives.zip({"zeros": bytes(1 << 20)})

    assert refuse(bomb, root) == "the compression ratio is that of a bomb"
    assert "bomb" in refuse(archives.tar([("d/zeros", bytes(1 << 20))]), root.with_name("tar"))


def test_a_member_beyond_its_limit_is_refused(archives: Any, root: Path) -> None:
    """Per-member cap."""
    noise = os.urandom(3 << 20)

    assert refuse(archives.zip({"x": noise}), root) == "a member is too large"
    assert refuse(archives.tar([("d/x", noise)]), root.with_name("t")) == "a member is too large"


def test_all_members_together_have_a_limit(archives: Any, root: Path) -> None:
    """Many members, none too large alone."""
    members = {f"x{n}": os.urandom(1 << 20) for n in range(5)}

    assert refuse(archives.zip(members), root) == "the unpacked archive is too large"
    tar = archives.tar([(f"d/{name}", data) for name, data in members.items()])
    assert refuse(tar, root.with_name("tar")) == "the unpacked archive is too large"


def test_a_small_declared_size_does_not_hide_a_large_member(archives: Any, root: Path) -> None:
    """The header lies; what counts is what comes out."""
    data = bytearray(archives.zip({"zeros": os.urandom(1 << 16) * 16}))
    small = struct.pack("<L", 16)
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = small
    data[22:26] = small

    assert refuse(bytes(data), root).startswith("damaged zip")
    assert (root / "zeros").stat().st_size <= 16


def test_a_large_declared_size_is_noticed(archives: Any, root: Path) -> None:
    """Neither may it promise more than it has."""
    data = bytearray(archives.zip({"x": os.urandom(1000)}))
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<L", 5000)

    refuse(bytes(data), root)


def test_too_many_members_are_refused(archives: Any, root: Path) -> None:
    """A million empty files fill the inodes, not the disk."""
    names = [f"n{n}" for n in range(60)]

    assert refuse(archives.zip(dict.fromkeys(names, b"")), root) == "too many members"
    tar = archives.tar([(f"d/{name}", b"") for name in names])
    assert refuse(tar, root.with_name("tar")) == "too many members"


def test_folders_count_as_members_too(archives: Any, root: Path) -> None:
    """One name can hide sixty folders."""
    deep = {f"{n}/" + "/".join(f"{n}{m}" for m in range(30)) + "/x": b"" for n in range(9)}

    assert refuse(archives.zip(deep), root) == "too many folders"


def test_a_huge_zip_directory_is_never_parsed(archives: Any, root: Path) -> None:
    """zipfile would make an object per entry before we could count them."""
    data = archives.zip({f"{n:0200d}": b"" for n in range(2000)})

    assert refuse(data, root) in ("too many members", "the directory of the archive is too large")
    assert not list(root.iterdir())


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_huge_tar_header_is_never_read(root: Path, format: int) -> None:
    """A long name is read into memory whole; gzip makes it cheap to send."""
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w", format=format) as archive:
        archive.addfile(tarfile.TarInfo("d/" + "n" * (1 << 20)))

    assert refuse(gzip.compress(buffer.getvalue()), root) == "a header is too large"


def test_overlapping_zip_members_are_refused(archives: Any, root: Path) -> None:
    """One compressed block under many names unpacks without end."""
    data = archives.zip({"a": bytes(100), "b": bytes(100)})
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    patched = bytearray(data)
    patched[second + 42 : second + 46] = patched[first + 42 : first + 46]

    assert refuse(bytes(patched), root) == "members overlap"


# -- damage -------------------------------------------------------------------


def test_every_truncation_is_an_error(archives: Any, tmp_path: Path) -> None:
    """Half an archive must not become half a model."""
    members = [("d/a", os.urandom(700)), ("d/b", os.urandom(700))]
    whole = [
        archives.zip(dict(members)),
        archives.tar(members),
        # Without the padding after the end mark, which may be missing.
        archives.tar(members, gz=False)[: 6 * 512 + 512],
    ]

    for number, data in enumerate(whole):
        unpack(io.BytesIO(data), tmp_path / f"{number}-whole", "x.mar", SMALL)
        for length in range(0, len(data) - 1, 97):
            refuse(data[:length], tmp_path / f"{number}-{length}")


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x1f\x8b", b"rubbish" * 500, bytes(99)],
)
def test_rubbish_is_an_error(root: Path, data: bytes) -> None:
    """Every byte string ends in our error, never in a traceback."""
    refuse(data, root)


@given(at=st.integers(0, 10_000), value=st.integers(0, 255), kind=st.sampled_from(["zip", "tar"]))
def test_one_wrong_byte_never_escapes(
    at: int, value: int, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Either it unpacks inside its folder, or it is our error."""
    from_bytes = _DAMAGED[kind]
    data = bytearray(from_bytes)
    data[at % len(data)] = value
    root = tmp_path_factory.mktemp("damaged") / "root"

    try:
        unpack(io.BytesIO(bytes(data)), root, "x.mar", SMALL)
    except ArchiveUnreadable:
        pass

    assert {path.name for path in root.parent.iterdir()} <= {"root"}


def _damaged() -> dict[str, bytes]:
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a/b", b"hello")
        archive.writestr("c", b"world")
    with tarfile.TarFile(fileobj=tarred, mode="w") as tar:
        for name in ("d/a", "d/b"):
            info = tarfile.TarInfo(name)
            info.size = 5
            tar.addfile(info, io.BytesIO(b"hello"))
    return {"zip": zipped.getvalue(), "tar": tarred.getvalue()[:2560]}


_DAMAGED = _damaged()


def test_an_encrypted_member_is_refused(archives: Any, root: Path) -> None:
    """We have no password."""
    data = bytearray(archives.zip({"x": b"1"}))
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1

    assert refuse(bytes(data), root) == "a member is encrypted"


def test_unpacking_can_be_stopped(archives: Any, root: Path) -> None:
    """A stop of the server does not wait for sixty gigabytes."""
    with pytest.raises(ArchiveUnreadable):
        unpack(io.BytesIO(archives.zip({"x": b"1"})), root, "x.mar", SMALL, lambda: True)


def test_padding_without_end_is_refused(root: Path) -> None:
    """Zeros after the end mark cost a gzip nothing."""
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w") as archive:
        archive.addfile(one_info("d/x"))

    reason = refuse(gzip.compress(buffer.getvalue() + bytes(8 << 20)), root)

    assert "bomb" in reason or "too large" in reason
