"""Archives as MMS's archiver makes them: contracts/mms.md 9.3, 9.6."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from stoker.archives.archive import ArchiveRequest
from stoker.archives.fetch import FetchLimits
from stoker.archives.mms_pack import FORMATS, MmsParts, pack_folder
from stoker.archives.obtaining import ArchivePlaces, open_cache
from stoker.archives.resolve import resolve
from stoker.errors import InvalidParameter, RuntimeInvalid

MANIFEST = "MAR-INF/MANIFEST.json"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "labels").mkdir(parents=True)
    for name in ("service.py", "weights.params", "labels/synset.txt"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def parts(source: Path) -> MmsParts:
    return MmsParts("greeter", source, "service.py:handle")


def names_in(path: Path) -> set[str]:
    if path.is_dir():
        return {each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()}
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as tar:
            return set(tar.getnames())
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize(
    ("archive_format", "name", "top"),
    [
        ("default", "greeter.mar", ""),
        ("tgz", "greeter.tar.gz", "greeter/"),
        ("no-archive", "greeter", ""),
    ],
)
def test_each_format_has_the_peers_layout(
    parts: MmsParts, store: Path, archive_format: str, name: str, top: str
) -> None:
    """Everything of the folder and a manifest; in a tarball below the model's name."""
    made = pack_folder(parts, store, archive_format)

    inside = ("service.py", "weights.params", "labels/synset.txt", MANIFEST)
    assert made == store / name
    assert names_in(made) == {top + member for member in inside}
    assert [path.name for path in store.iterdir()] == [name]


@pytest.mark.parametrize("archive_format", FORMATS)
def test_the_server_takes_it_for_one_of_mms(
    parts: MmsParts, store: Path, tmp_path: Path, archive_format: str
) -> None:
    """So its handler is called as the peer calls it, by whichever listener it came."""
    made = pack_folder(parts, store, archive_format)
    places = ArchivePlaces(store, tmp_path / "cache", (), FetchLimits(total_timeout_s=20))

    found = resolve(ArchiveRequest(url=made.name), places, open_cache(places))

    assert (found.contract, found.model, found.handler) == ("mms", "greeter", "service.py:handle")
    assert found.runtime == "python"
    assert found.model_dir is not None
    assert (found.model_dir / "labels" / "synset.txt").read_text() == "labels/synset.txt"


def test_the_manifest_has_the_peers_entries(parts: MmsParts, source: Path, store: Path) -> None:
    """And takes the place of one that an unpacked archive brought along."""
    (source / "MAR-INF").mkdir()
    (source / MANIFEST).write_text("{}")

    with zipfile.ZipFile(pack_folder(parts, store)) as archive:
        assert json.loads(archive.read(MANIFEST)) == {
            "runtime": "python",
            "model": {"modelName": "greeter", "handler": "service.py:handle"},
            "modelServerVersion": "1.0",
            "implementationVersion": "1.0",
            "specificationVersion": "1.0",
        }
        assert archive.namelist().count(MANIFEST) == 1


def test_what_is_no_part_of_a_model_is_left_out(parts: MmsParts, source: Path, store: Path) -> None:
    """The list of 9.6; a MANIFEST.json further down and a hidden file are the model's own."""
    left_out = (
        ".git/config",
        "__MACOSX/x",
        "labels/__pycache__/x.txt",
        "labels/x.pyc",
        "labels/.DS_Store",
        "old.mar",
        "MANIFEST.json",
    )
    packed = ("labels/MANIFEST.json", ".settings")
    for name in (*left_out, *packed):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("x")

    names = names_in(pack_folder(parts, store))

    assert names.isdisjoint(left_out)
    assert names.issuperset(packed)


@pytest.mark.parametrize("archive_format", FORMATS)
def test_an_earlier_archive_does_not_go_into_the_next(
    parts: MmsParts, source: Path, archive_format: str
) -> None:
    """Who works in the model's folder exports there by default."""
    first = names_in(pack_folder(parts, source, archive_format))

    assert names_in(pack_folder(parts, source, archive_format, force=True)) == first


@pytest.mark.parametrize("archive_format", FORMATS)
def test_what_exists_is_replaced_only_by_force(
    parts: MmsParts, source: Path, store: Path, archive_format: str
) -> None:
    """The sentence is the peer's, and what is there stays whole."""
    made = pack_folder(parts, store, archive_format)
    before = names_in(made)
    (source / "more.txt").write_text("more")

    with pytest.raises(InvalidParameter) as refused:
        pack_folder(parts, store, archive_format)

    assert refused.value.message == f"{made} already exists."
    assert names_in(made) == before
    assert len(names_in(pack_folder(parts, store, archive_format, force=True))) == len(before) + 1


@pytest.mark.parametrize("inside", ["", "deeper/still"])
def test_a_folder_never_takes_the_place_of_its_own_source(tmp_path: Path, inside: str) -> None:
    """Force would delete what is not packed, or the model altogether."""
    source = tmp_path / "greeter" / inside
    source.mkdir(parents=True)
    (source / ".env").write_text("x")

    with pytest.raises(InvalidParameter, match="holds the model itself"):
        pack_folder(MmsParts("greeter", source, "s"), tmp_path, "no-archive", force=True)

    assert (source / ".env").exists()


@pytest.mark.parametrize("archive_format", ["default", "tgz"])
def test_the_same_folder_gives_the_same_bytes(
    parts: MmsParts, source: Path, store: Path, archive_format: str
) -> None:
    """A content hash must not change for a new time stamp."""
    first = pack_folder(parts, store, archive_format).read_bytes()
    os.utime(source / "service.py", (5, 5))

    assert pack_folder(parts, store, archive_format, force=True).read_bytes() == first


def test_what_cannot_be_packed_is_said(source: Path, store: Path, tmp_path: Path) -> None:
    """Nothing is left out in silence, and nothing half done stays behind."""
    gone = tmp_path / "gone"
    for bad, export_path, archive_format, why in (
        (MmsParts("-bad", source, "s"), store, "default", "model_name"),
        (MmsParts("m", gone, "s"), store, "default", "model_path"),
        (MmsParts("m", source / "service.py", "s"), store, "default", "model_path"),
        (MmsParts("m", source, "s"), gone, "default", "export_path"),
        (MmsParts("m", source, "s"), store, "zip-store", "archive_format"),
    ):
        with pytest.raises(InvalidParameter) as refused:
            pack_folder(bad, export_path, archive_format)
        assert refused.value.details["parameter"] == why
    with pytest.raises(RuntimeInvalid):
        pack_folder(MmsParts("m", source, "s", "python2"), store)
    (source / "link").symlink_to(gone)
    with pytest.raises(InvalidParameter, match="link cannot be packed"):
        pack_folder(MmsParts("m", source, "s"), store)

    assert list(store.iterdir()) == []
