from __future__ import annotations

import json
import os
import stat
import time
import zipfile
from pathlib import Path

import pytest

from stoker.archives.pack import FORMATS, Parts, pack
from stoker.errors import InvalidParameter, RuntimeInvalid


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    sources = tmp_path / "sources"
    (sources / "extra").mkdir(parents=True)
    for name in ("h.py", "m.py", "w.pt", "requirements.txt", "c.yaml", "extra/z", "extra/a"):
        (sources / name).write_text(name)
    return Parts(
        "demo",
        str(sources / "h.py"),
        "2.0",
        sources / "w.pt",
        sources / "m.py",
        (sources / "extra",),
        sources / "requirements.txt",
        sources / "c.yaml",
        "PYTHON",
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def test_the_manifest_names_every_part(parts: Parts, out: Path) -> None:
    """Contract 6.2."""
    with zipfile.ZipFile(pack(parts, out)) as archive:
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        compression = {info.compress_type for info in archive.infolist()}

    assert manifest["runtime"] == "python"
    assert manifest["model"] == {
        "modelName": "demo",
        "serializedFile": "w.pt",
        "handler": "h.py",
        "modelFile": "m.py",
        "modelVersion": "2.0",
        "requirementsFile": "requirements.txt",
        "configFile": "c.yaml",
    }
    assert compression == {zipfile.ZIP_DEFLATED}


@pytest.mark.parametrize("archive_format", [f for f in FORMATS if f != "no-archive"])
def test_the_same_parts_give_the_same_bytes(
    parts: Parts, out: Path, archive_format: str, tmp_path: Path
) -> None:
    """A content hash must not change for a new time stamp."""
    first = pack(parts, out, archive_format).read_bytes()
    for path in (tmp_path / "sources").rglob("*"):
        os.utime(path, (time.time() + 1000, 5))

    assert first == pack(parts, out, archive_format, force=True).read_bytes()


@pytest.mark.parametrize(
    ("archive_format", "name"),
    [
        ("default", "demo.mar"),
        ("zip-store", "demo.mar"),
        ("tgz", "demo.tar.gz"),
        ("no-archive", "demo"),
    ],
)
def test_an_archive_is_replaced_only_by_force(
    parts: Parts, out: Path, archive_format: str, name: str
) -> None:
    """As the peer's archiver; and nothing half done stays behind."""
    assert pack(parts, out, archive_format) == out / name
    with pytest.raises(InvalidParameter):
        pack(parts, out, archive_format)
    assert pack(parts, out, archive_format, force=True) == out / name

    assert [name] == [path.name for path in out.iterdir()]


def test_a_built_in_handler_brings_no_file(out: Path) -> None:
    """Contract 6.1."""
    with zipfile.ZipFile(pack(Parts("m", "image_classifier"), out)) as archive:
        assert archive.namelist() == ["MAR-INF/MANIFEST.json"]
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))

    assert manifest["model"]["handler"] == "image_classifier"


def test_a_handler_may_leave_its_suffix_out(parts: Parts, out: Path, tmp_path: Path) -> None:
    """`--handler h` means h.py."""
    handler = str(tmp_path / "sources" / "h")

    with zipfile.ZipFile(pack(Parts("m", handler), out)) as archive:
        assert "h.py" in archive.namelist()


def test_scripts_stay_executable(parts: Parts, out: Path, tmp_path: Path) -> None:
    """And nothing else of a mode is taken over."""
    (tmp_path / "sources" / "extra" / "a").chmod(0o4700)

    with zipfile.ZipFile(pack(parts, out)) as archive:
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}

    assert modes["a"] == stat.S_IFREG | 0o755
    assert modes["z"] == stat.S_IFREG | 0o644


def test_what_cannot_be_packed_is_said(parts: Parts, out: Path, tmp_path: Path) -> None:
    """Each names the parameter that is to blame."""
    gone, same = tmp_path / "gone", tmp_path / "other" / "h.py"
    same.parent.mkdir()
    same.write_text("another")
    handler = parts.handler
    cases = {
        "model_name": Parts("-bad", handler),
        "model_version": Parts("m", handler, "a b"),
        "handler": Parts("m", str(gone)),
        "serialized_file": Parts("m", handler, serialized_file=gone),
        "extra_files": Parts("m", handler, extra_files=(gone,)),
        "model_file": Parts("m", handler, model_file=gone),
    }
    for parameter, bad in cases.items():
        with pytest.raises(InvalidParameter) as caught:
            pack(bad, out)
        assert parameter == caught.value.details["parameter"]
    with pytest.raises(InvalidParameter, match=r"a second file called h\.py"):
        pack(Parts("m", handler, extra_files=(same,)), out)
    with pytest.raises(InvalidParameter, match="archive_format"):
        pack(parts, out, "rar")
    with pytest.raises(InvalidParameter, match="export_path"):
        pack(parts, gone)
    with pytest.raises(RuntimeInvalid):
        pack(Parts("m", handler, runtime="LSP"), out)

    assert list(out.iterdir()) == []
