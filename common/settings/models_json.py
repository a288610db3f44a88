"""The `models` key: JSON with what single versions should be, written by an operator.

    {"noop": {"1.0": {"defaultVersion": true, "marName": "noop.mar", "minWorkers": 1,
                      "maxWorkers": 2, "batchSize": 4, "maxBatchDelay": 50,
                      "responseTimeout": 120, "startupTimeout": 120, "runtimeType": "python"}}}

Of an entry only the numbers above zero and `runtimeType` count; which of them
wins over an archive's file or a request is decided where a version is built.

Source: contracts/torchserve.md 9.3, 3.4.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from stoker.errors import SettingsError

_MAX_INT: Final = 2**31 - 1
_NUMBERS: Final = (
    "minWorkers",
    "maxWorkers",
    "batchSize",
    "maxBatchDelay",
    "responseTimeout",
    "startupTimeout",
)
#: What the peer writes there and does not read.
_UNREAD: Final = ("defaultVersion", "marName", "parallelLevel")
_RUNTIME: Final = "runtimeType"


@dataclass(frozen=True, slots=True)
class ModelOverride:
    """One version's entry.  None: it does not say."""

    min_workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay_s: float | None = None
    response_timeout_s: int | None = None
    startup_timeout_s: int | None = None
    runtime: str | None = None


NO_OVERRIDE: Final = ModelOverride()


@dataclass(frozen=True, slots=True)
class ModelOverrides:
    """All entries by (model, version), and a sentence for each key that means nothing."""

    entries: Mapping[tuple[str, str], ModelOverride]
    notes: tuple[str, ...] = ()

    def of(self, model: str, version: str) -> ModelOverride:
        return self.entries.get((model, version), NO_OVERRIDE)


@functools.lru_cache(maxsize=4)
def read_models(text: str) -> ModelOverrides:
    """Raises SettingsError, without saying where the text came from."""
    if not text:
        return ModelOverrides({})
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(f"must be JSON: {error}") from None
    entries = {}
    unknown: dict[str, None] = {}
    for model, versions in _map(document, "must be a JSON object").items():
        for version, entry in _map(versions, f"{model!r} must be an object").items():
            where = f"{model} {version}"
            fields = _map(entry, f"{where!r} must be an object")
            entries[model, version] = _override(fields, where)
            unknown.update(dict.fromkeys(fields.keys() - {*_NUMBERS, *_UNREAD, _RUNTIME}))
    notes = (f"models: without effect: {', '.join(sorted(unknown))}",) if unknown else ()
    return ModelOverrides(entries, notes)


def _override(fields: dict[str, Any], where: str) -> ModelOverride:
    numbers = {name: _number(fields.get(name), name, where) for name in _NUMBERS}
    delay_ms = numbers["maxBatchDelay"]
    runtime = fields.get(_RUNTIME)
    if runtime is not None and not isinstance(runtime, str):
        raise _bad(f"{where!r}: {_RUNTIME} must be a text")
    return ModelOverride(
        min_workers=numbers["minWorkers"],
        max_workers=numbers["maxWorkers"],
        batch_size=numbers["batchSize"],
        max_batch_delay_s=None if delay_ms is None else delay_ms / 1000,
        response_timeout_s=numbers["responseTimeout"],
        startup_timeout_s=numbers["startupTimeout"],
        runtime=runtime or None,
    )


def _number(value: Any, name: str, where: str) -> int | None:
    """Numbers may be written as texts; what is not above zero says nothing."""
    if value is None:
        return None
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal() and len(value) <= 12:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _MAX_INT:
        raise _bad(f"{where!r}: {name} must be a whole number")
    return value if value > 0 else None


def _map(value: Any, refusal: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(refusal)
    return value


def _bad(text: str) -> SettingsError:
    return SettingsError(f"models {text}", setting="models")
