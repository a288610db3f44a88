"""MAR-INF/MANIFEST.json, read as the peer reads it.

An absent key has the peer's default; a key that is there and null, or of the
wrong type, is an error with the peer's text.  The raw document is kept,
because that, unaltered, is `context.manifest` for a handler.

Source: contracts/torchserve.md 6.2, 1.6.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stoker.archives.plain import NotPlain, plain
from stoker.errors import ManifestInvalid, RuntimeInvalid

MANIFEST_PATH: Final = "MAR-INF/MANIFEST.json"
MAX_MANIFEST_BYTES: Final = 1 << 20

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

    Raises:
        ManifestInvalid: unreadable, or with an impossible entry.
        RuntimeInvalid: the runtime is LSP.
    """
    path = model_dir / MANIFEST_PATH
    try:
        if not path.is_file():
            return Manifest()
        with path.open("rb") as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestInvalid(_UNPARSABLE, url=url, reason=f"cannot read: {error}") from None
    return parse_manifest(text, url)


def parse_manifest(text: bytes, url: str) -> Manifest:
    """As `read_manifest`, from the bytes of the file."""
    if len(text) > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(_UNPARSABLE, url=url, reason="the manifest is too large")
    try:
        document, _ = plain(json.loads(text.decode("utf-8-sig")))
    except (ValueError, RecursionError, NotPlain) as error:
        raise ManifestInvalid(_UNPARSABLE, url=url, reason=str(error)[:200]) from None
    if not isinstance(document, dict):
        raise ManifestInvalid(_UNPARSABLE, url=url, reason="the manifest is not an object")
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
    )


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
