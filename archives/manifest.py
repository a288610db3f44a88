"""MAR-INF/MANIFEST.json, read as the peers read it.

An absent key has the peer's default; a key that is there and null, or of the
wrong type, is an error with the peer's text.  The raw document is kept,
because that, unaltered, is `context.manifest` for a handler.

MMS's archives look like TorchServe's but for some entries about its archiver;
its oldest have their MANIFEST.json beside the model, with keys of its own.

Source: contracts/torchserve.md 6.2, 1.6; contracts/mms.md 9.3-9.5.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from stoker.archives.plain import NotPlain, plain
from stoker.errors import ManifestInvalid, RuntimeInvalid

MANIFEST_PATH: Final = "MAR-INF/MANIFEST.json"
MAX_MANIFEST_BYTES: Final = 1 << 20

#: Of archives from before MAR-INF.
LEGACY_PATH: Final = "MANIFEST.json"
LEGACY_VERSION: Final = "snapshot"
MAX_FOLDERS: Final = 256

TORCHSERVE: Final = "torchserve"
MMS: Final = "mms"
#: What MMS's archiver writes, and TorchServe's does not.
_MMS_KEY: Final = "modelServerVersion"
_TORCHSERVE_KEY: Final = "archiverVersion"

DEFAULT_RUNTIME: Final = "python"
DEFAULT_VERSION: Final = "1.0"

_RUNTIMES: Final = {"python": "python", "python3": "python3"}
_UNPARSABLE: Final = "Failed to parse signature.json."  # the peer's words


@dataclass(frozen=True, slots=True)
class Manifest:
    """What stoker itself reads of a manifest; None where it says nothing."""

    runtime: str = DEFAULT_RUNTIME
    model_name: str | None = None
    model_version: str = DEFAULT_VERSION
    handler: str | None = None
    envelope: str | None = None
    requirements_file: str | None = None
    config_file: str | None = None
    #: The document itself; None when there is no manifest.
    raw: dict[str, Any] | None = None
    #: Whose conventions the handler was written for: "torchserve" or "mms".
    contract: str = TORCHSERVE
    #: Where it lies, seen from the archive's top: "" or one folder below.
    folder: str = ""


def parse_runtime(text: str) -> str:
    """Return the runtime word, in lower case.

    Raises:
        RuntimeInvalid: unknown, or LSP (the peer's C++ backend, which we do not have).
    """
    runtime = _RUNTIMES.get(text.strip().lower())
    if runtime is None:
        raise RuntimeInvalid(f"Invalid RuntimeType value: {text}", runtime=text)
    return runtime


def read_manifest(model_dir: Path, url: str) -> Manifest:
    """Read the manifest of an unpacked archive; the defaults of 6.2 when there is none.

    The first that is found counts: in MAR-INF, at the top, one folder down.

    Raises:
        ManifestInvalid: unreadable, or with an impossible entry.
        RuntimeInvalid: the runtime is LSP.
    """
    try:
        for folder in _folders(model_dir):
            for place, parse in _PLACES:
                path = model_dir / folder / place
                if path.is_file():
                    with path.open("rb") as file:
                        text = file.read(MAX_MANIFEST_BYTES + 1)
                    if (manifest := parse(text, url)) is not None:
                        return replace(manifest, folder=folder)
    except OSError as error:
        raise ManifestInvalid(_UNPARSABLE, url=url, reason=f"cannot read: {error}") from None
    return Manifest()


def _folders(model_dir: Path) -> Iterator[str]:
    """The archive's top, then what lies one folder down; hidden ones and links are no model's."""
    yield ""
    with os.scandir(model_dir) as entries:
        found = sorted(
            entry.name
            for entry in itertools.islice(entries, MAX_FOLDERS)
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        )
    yield from found


def _document(text: bytes, url: str) -> dict[str, Any]:
    if len(text) > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(_UNPARSABLE, url=url, reason="the manifest is too large")
    try:
        document, _ = plain(json.loads(text.decode("utf-8-sig")))
    except (ValueError, RecursionError, NotPlain) as error:
        raise ManifestInvalid(_UNPARSABLE, url=url, reason=str(error)[:200]) from None
    if not isinstance(document, dict):
        raise ManifestInvalid(_UNPARSABLE, url=url, reason="the manifest is not an object")
    return document


def parse_manifest(text: bytes, url: str) -> Manifest:
    """As `read_manifest`, from the bytes of a MAR-INF/MANIFEST.json."""
    document = _document(text, url)
    model = document.get("model")
    if model is None:
        raise ManifestInvalid("Missing Model entry in manifest file.", url=url)
    if not isinstance(model, dict):
        raise ManifestInvalid(_UNPARSABLE, url=url, reason="model is not an object")
    return Manifest(
        runtime=_runtime(document, url),
        model_name=_text(model, "modelName", url),
        model_version=_version(model, url),
        handler=_text(model, "handler", url),
        envelope=_text(model, "envelope", url),
        requirements_file=_text(model, "requirementsFile", url),
        config_file=_text(model, "configFile", url),
        raw=document,
        contract=MMS if _MMS_KEY in document and _TORCHSERVE_KEY not in document else TORCHSERVE,
    )


def parse_outer(text: bytes, url: str) -> Manifest | None:
    """As `read_manifest`, from the bytes of a MANIFEST.json outside MAR-INF.

    That is one of MMS 0.x (contracts/mms.md 9.5), or of today's layout in the
    wrong place; None for a file of that name which is somebody else's.
    """
    try:
        document = _document(text, url)
    except ManifestInvalid:
        return None
    if isinstance(document.get("model"), dict):
        return parse_manifest(text, url)
    model = document.get("Model")
    if not isinstance(model, dict):
        return None
    handler = _text(model, "Service", url)
    if handler is None:
        raise ManifestInvalid("Missing Service entry in MANIFEST.json", url=url)
    return Manifest(
        model_name=_text(model, "Model-Name", url),
        model_version=LEGACY_VERSION,
        handler=handler,
        raw=document,
        contract=MMS,
    )


_PLACES: Final[tuple[tuple[str, Callable[[bytes, str], Manifest | None]], ...]] = (
    (MANIFEST_PATH, parse_manifest),
    (LEGACY_PATH, parse_outer),
)


def engine_name(document: Mapping[str, Any] | None) -> str | None:
    """What a manifest says that its model computes with; TorchServe's say nothing."""
    known = document or {}
    if isinstance(known.get("Engine"), dict):
        version = known["Engine"].get("MXNet")
        return "MXNet" if isinstance(version, (int, float)) else None
    engine = known.get("engine")
    name = engine.get("engineName") if isinstance(engine, dict) else None
    return name if isinstance(name, str) and name else None


def is_legacy(document: Mapping[str, Any] | None) -> bool:
    """A handler of MMS 0.x is a class that derives from the peer's, and is loaded otherwise."""
    return document is not None and "model" not in document and "Model" in document


def _text(entries: dict[str, Any], key: str, url: str) -> str | None:
    """A text entry; empty counts as absent.  A number is read as text, as by the peer."""
    value = entries.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, dict | list):
        raise ManifestInvalid(_UNPARSABLE, url=url, reason=f"{key} is not a text")
    return value if isinstance(value, str) else json.dumps(value)


def _version(model: dict[str, Any], url: str) -> str:
    if "modelVersion" not in model:
        return DEFAULT_VERSION
    version = _text(model, "modelVersion", url)
    if version is None:
        raise ManifestInvalid("Model version is not defined.", url=url)
    return version


def _runtime(document: dict[str, Any], url: str) -> str:
    if "runtime" not in document:
        return DEFAULT_RUNTIME
    text = _text(document, "runtime", url)
    if text is not None and text.strip().lower() == "lsp":
        raise RuntimeInvalid(f"Invalid RuntimeType value: {text}", runtime=text, url=url)
    runtime = _RUNTIMES.get(text.strip().lower()) if text else None
    if runtime is None:
        raise ManifestInvalid("Runtime is not defined or invalid.", url=url)
    return runtime
