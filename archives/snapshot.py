"""`model_snapshot`: which models TorchServe had, as the JSON its snapshot files hold.

    {"name": "20240131120000123-snapshot.cfg", "modelCount": 1, "created": 1706702400123,
     "models": {"demo": {"1.0": {"defaultVersion": true, "marName": "demo.mar",
                                 "minWorkers": 1, "maxWorkers": 1, "batchSize": 1,
                                 "maxBatchDelay": 100, "responseTimeout": 120,
                                 "startupTimeout": 120, "runtimeType": "python"}}}}

What the peer cannot say of a version it reduces: an address to its last part,
and not a word of a handler that a request named.  Ours say those in keys of
their own, `url` and `handler`, which the peer skips.

Source: contracts/torchserve.md 9.5.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from stoker.errors import InvalidParameter, SettingsError
from stoker.names import check_model_name, check_version

MAX_ENTRIES: Final = 100_000
_MAX_WORKERS: Final = 1024
_MAX_INT: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """One version.  None: it does not say.

    Attributes:
        url: A name in the model store, or an address.
    """

    model: str
    version: str
    url: str
    is_default: bool = False
    min_workers: int = 0
    max_workers: int = 0
    batch_size: int | None = None
    max_batch_delay_s: float | None = None
    response_timeout_s: int | None = None
    startup_timeout_s: int | None = None
    runtime: str | None = None
    parallel_level: int = 0
    handler: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    name: str
    entries: tuple[SnapshotEntry, ...]


def read_snapshot(text: str) -> Snapshot:
    """Raises SettingsError, without saying where the text came from."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(f"must be JSON: {error}") from None
    document = _map(document, "must be a JSON object")
    entries = []
    for model, versions in _map(document.get("models"), "has no object `models`").items():
        for version, entry in _map(versions, f"{model!r} must be an object").items():
            where = f"{model} {version}"
            entries.append(_entry(model, version, _map(entry, f"{where!r} must be an object")))
    if len(entries) > MAX_ENTRIES:
        raise _bad(f"has more than {MAX_ENTRIES} versions")
    return Snapshot(str(document.get("name", "")), tuple(entries))


def write_snapshot(name: str, created_ms: int, entries: Iterable[SnapshotEntry]) -> str:
    """The document as the peer writes it; versions without an archive must not be among them."""
    models: dict[str, dict[str, Any]] = {}
    for entry in entries:
        models.setdefault(entry.model, {})[entry.version] = _document(entry)
    document = {
        "name": name,
        "modelCount": len(models),
        "created": created_ms,
        "models": models,
    }
    return json.dumps(document, indent=2)


def archive_name(url: str) -> str:
    """The last part of an address or a path: all that the peer keeps of it."""
    path = url.partition("?")[0] if "://" in url else url
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _entry(model: str, version: str, fields: dict[str, Any]) -> SnapshotEntry:
    where = f"{model} {version}"
    try:
        check_model_name(model)
        check_version(version)
    except InvalidParameter as error:
        raise _bad(f"{where!r}: {error.message}") from None
    url = _text(fields, "url", where) or _text(fields, "marName", where)
    if not url:
        raise _bad(f"{where!r} has no marName")
    delay_ms = _number(fields, "maxBatchDelay", where)
    low = _number(fields, "minWorkers", where) or 0
    high = _number(fields, "maxWorkers", where) or 0
    return SnapshotEntry(
        model,
        version,
        url,
        is_default=fields.get("defaultVersion") is True,
        min_workers=min(low, _MAX_WORKERS),
        max_workers=min(max(low, high), _MAX_WORKERS),
        batch_size=_number(fields, "batchSize", where) or None,
        max_batch_delay_s=None if delay_ms is None else delay_ms / 1000,
        response_timeout_s=_number(fields, "responseTimeout", where) or None,
        startup_timeout_s=_number(fields, "startupTimeout", where) or None,
        runtime=_text(fields, "runtimeType", where),
        parallel_level=_number(fields, "parallelLevel", where) or 0,
        handler=_text(fields, "handler", where),
    )


def _document(entry: SnapshotEntry) -> dict[str, Any]:
    mar_name = archive_name(entry.url)
    fields: dict[str, Any] = {
        "defaultVersion": entry.is_default,
        "marName": mar_name,
        "minWorkers": entry.min_workers,
        "maxWorkers": entry.max_workers,
        "batchSize": entry.batch_size,
        "maxBatchDelay": round((entry.max_batch_delay_s or 0) * 1000),
        "responseTimeout": entry.response_timeout_s,
        "startupTimeout": entry.startup_timeout_s,
        "runtimeType": entry.runtime,
        "parallelLevel": entry.parallel_level or None,
        "url": None if entry.url == mar_name else entry.url,
        "handler": entry.handler,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _number(fields: dict[str, Any], name: str, where: str) -> int | None:
    """What is below zero says nothing."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _MAX_INT:
        raise _bad(f"{where!r}: {name} must be a whole number")
    return value if value >= 0 else None


def _text(fields: dict[str, Any], name: str, where: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise _bad(f"{where!r}: {name} must be a text")
    return value or None


def _map(value: Any, refusal: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(refusal)
    return value


def _bad(text: str) -> SettingsError:
    return SettingsError(f"model_snapshot {text}", setting="model_snapshot")
