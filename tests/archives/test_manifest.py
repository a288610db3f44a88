from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.archives.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    engine_name,
    parse_manifest,
    parse_runtime,
    read_manifest,
)
from stoker.archives.plain import MAX_TEXT, NotPlain, plain
from stoker.errors import ManifestInvalid, RuntimeInvalid


def document(**changes: Any) -> bytes:
    model = {"modelName": "demo", "modelVersion": "2.0", "handler": "h.py:f", "extensions": {}}
    return json.dumps({"runtime": "python", "model": model, **changes}).encode()


def test_a_manifest_is_read_and_kept(archives: Any) -> None:
    """What handlers see is the document itself (contract 6.2)."""
    text = archives.manifest(configFile="model-config.yaml", sourceVocab="v.pt")

    manifest = parse_manifest(text, "x.mar")

    assert manifest.model_name == "demo"
    assert manifest.handler == "handler.py"
    assert manifest.model_version == "1.0"
    assert manifest.config_file == "model-config.yaml"
    assert manifest.raw == json.loads(text)


def test_without_a_manifest_the_defaults_hold(tmp_path: Path) -> None:
    """Contract 6.2."""
    assert Manifest("python", None, "1.0") == read_manifest(tmp_path, "x")


def test_absent_entries_have_defaults() -> None:
    """Old archives carry little."""
    manifest = parse_manifest(b'\xef\xbb\xbf{"model": {}}', "x.mar")

    assert (
        manifest.runtime,
        manifest.model_version,
        manifest.model_name,
    ) == ("python", "1.0", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (document(model=None), "Missing Model entry in manifest file."),
        (b"{}", "Missing Model entry in manifest file."),
        (document(model={"modelVersion": None}), "Model version is not defined."),
        (document(model={"modelVersion": ""}), "Model version is not defined."),
        (document(runtime=None), "Runtime is not defined or invalid."),
        (document(runtime="python2.7"), "Runtime is not defined or invalid."),
        (document(runtime={}), "Failed to parse signature.json."),
        (document(model=[]), "Failed to parse signature.json."),
        (document(model={"handler": ["x"]}), "Failed to parse signature.json."),
        (b"", "Failed to parse signature.json."),
        (b"[]", "Failed to parse signature.json."),
        (b"{", "Failed to parse signature.json."),
        (b"\xff\xfe{}", "Failed to parse signature.json."),
        (b"[" * 100_000, "Failed to parse signature.json."),
        (b'{"a": ' * 90 + b"1" + b"}" * 90, "Failed to parse signature.json."),
        (b" " * (MAX_MANIFEST_BYTES + 1), "Failed to parse signature.json."),
        (b'{"n": ' + b"9" * 10_000 + b"}", "Failed to parse signature.json."),
    ],
)
def test_faults_have_the_contracts_texts(text: bytes, message: str) -> None:
    """Contract 1.6."""
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifest(text, "x.mar")

    assert message == caught.value.message
    assert caught.value.details["url"] == "x.mar"


def test_runtime_words_are_read_in_any_case() -> None:
    """The pages say `PYTHON`, the peer's code says `python`; both work."""
    assert [parse_runtime(word) for word in ("PYTHON", "python", "Python3")] == [
        "python",
        "python",
        "python3",
    ]
    assert parse_manifest(document(runtime="PYTHON"), "x").runtime == "python"


def test_other_runtimes_are_refused() -> None:
    """Contract 1.6; LSP is the peer's C++ backend."""
    with pytest.raises(RuntimeInvalid, match=r"^Invalid RuntimeType value: java$"):
        parse_runtime("java")
    with pytest.raises(RuntimeInvalid, match=r"^Invalid RuntimeType value: LSP$"):
        parse_manifest(document(runtime="LSP"), "x.mar")


@given(st.binary(max_size=60))
def test_any_bytes_are_a_manifest_or_our_error(text: bytes) -> None:
    """A hostile archive must not reach the loop as a traceback."""
    try:
        parse_manifest(text, "x.mar")
    except (ManifestInvalid, RuntimeInvalid):
        pass


def test_plain_data_fits_the_wire() -> None:
    """Lone surrogates, huge numbers, dates, sets and odd keys would break the packer."""
    import datetime

    value = {1: "\ud800", "n": 1 << 70, "d": datetime.date(2024, 1, 2), "s": {2, 1}, "b": b"x"}

    done, changes = plain(value)

    assert {"1": "?", "n": hex(1 << 70), "d": "2024-01-02", "s": [1, 2], "b": b"x"} == done
    assert len(changes) == 4


def test_plain_data_has_a_budget() -> None:
    """Repetition by reference is small in memory and endless on the wire."""
    bomb: list[Any] = ["x" * 1000]
    for _ in range(30):
        bomb = [bomb, bomb]

    with pytest.raises(NotPlain):
        plain(bomb)
    with pytest.raises(NotPlain):
        plain("x" * (MAX_TEXT + 1))


# -- MMS's archives (contracts/mms.md 9.3-9.5) -----------------------------------------

LEGACY = {
    "Engine": {"MXNet": 0.12},
    "Model-Archive-Description": "noop",
    "Model-Archive-Version": 0.1,
    "Model": {
        "Model-Name": "noop",
        "Service": "noop.py",
        "Signature": "signature.json",
        "Model-Format": "MXNet-Symbolic",
    },
}


def write_manifest(folder: Path, text: Any, place: str) -> None:
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


@pytest.mark.parametrize(
    ("changes", "contract"),
    [
        ({"modelServerVersion": "1.0", "implementationVersion": "1.0"}, "mms"),
        ({"modelServerVersion": "1.0", "archiverVersion": "0.9"}, "torchserve"),
        ({"createdOn": "today", "archiverVersion": "0.9"}, "torchserve"),
        ({}, "torchserve"),
    ],
)
def test_an_archive_says_whose_handler_it_holds(changes: dict[str, Any], contract: str) -> None:
    """By what its archiver wrote; the listener it comes through does not matter."""
    assert parse_manifest(document(**changes), "x.mar").contract == contract


def test_a_manifest_of_mms_0_x_is_understood(tmp_path: Path) -> None:
    """It lies beside the model, and a handler sees it as it is (9.5, 10.6)."""
    write_manifest(tmp_path, LEGACY, "MANIFEST.json")

    manifest = read_manifest(tmp_path, "x.model")

    assert (manifest.model_name, manifest.handler) == ("noop", "noop.py")
    assert (manifest.model_version, manifest.contract) == ("snapshot", "mms")
    assert manifest.raw == LEGACY
    assert engine_name(manifest.raw) == "MXNet"


@pytest.mark.parametrize(
    ("document_", "engine"),
    [
        ({"engine": {"engineName": "MXNet", "engineVersion": "1.3"}}, "MXNet"),
        ({"engine": {}}, None),
        ({"engine": "MXNet"}, None),
        ({"Engine": {"MXNet": "new"}}, None),
        (None, None),
    ],
)
def test_an_engine_is_shown_where_one_is_named(document_: Any, engine: str | None) -> None:
    """9.3; an object without a name is no reason to refuse an archive that TorchServe takes."""
    assert engine_name(document_) == engine


def test_a_legacy_manifest_without_a_service_is_refused(tmp_path: Path) -> None:
    """9.4."""
    write_manifest(tmp_path, {"Model": {"Model-Name": "noop"}}, "MANIFEST.json")

    with pytest.raises(ManifestInvalid) as refused:
        read_manifest(tmp_path, "x.model")

    assert refused.value.message == "Missing Service entry in MANIFEST.json"


@pytest.mark.parametrize("place", ["MAR-INF/MANIFEST.json", "MANIFEST.json"])
def test_a_manifest_may_lie_one_folder_down(tmp_path: Path, place: str) -> None:
    """Whoever zipped the folder instead of what is in it; `folder` says where the model is."""
    (tmp_path / "aside").mkdir()
    write_manifest(tmp_path / "noop", document().decode(), place)

    manifest = read_manifest(tmp_path, "x.mar")

    assert (manifest.folder, manifest.model_name) == ("noop", "demo")


def test_the_first_manifest_counts(tmp_path: Path) -> None:
    """MAR-INF, then the top, then a folder (9.3)."""
    write_manifest(tmp_path / "below", {"model": {"modelName": "deep"}}, "MANIFEST.json")
    write_manifest(tmp_path, LEGACY, "MANIFEST.json")
    write_manifest(tmp_path, document().decode(), "MAR-INF/MANIFEST.json")

    assert read_manifest(tmp_path, "x.mar").model_name == "demo"


@pytest.mark.parametrize("text", ['{"name": "an extension"}', "[]", "not JSON", "{}"])
def test_somebody_elses_manifest_json_is_none(tmp_path: Path, text: str) -> None:
    """An archive of TorchServe's may hold any file of that name, and loads as before."""
    write_manifest(tmp_path, text, "MANIFEST.json")
    write_manifest(tmp_path / "web", text, "MANIFEST.json")

    assert Manifest() == read_manifest(tmp_path, "x.mar")
