"""The tables of the stored state, and how what should be served is rows of them.

    versions  sequence | model | version | min_workers | max_workers | asked (JSON) |
              content_hash | item | configured_workers | registered_at
    defaults  model | version
    items     sequence | item
    facts     name | value
    workflows sequence | name | version | asked (JSON) | content_hash | registered_at

A row may have been changed by anybody: what is read is checked like a request.
"""

from __future__ import annotations

import json
from typing import Any, Final

from stoker.names import check_model_name, check_version
from stoker.supervisor.desired import DesiredVersion, DesiredWorkflow

_MAX_WORKERS: Final = 1 << 16

#: The statements that lead from layout n - 1 to layout n; never changed once
#: released, only added to.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE versions (sequence INTEGER PRIMARY KEY AUTOINCREMENT,"
        " model TEXT NOT NULL, version TEXT NOT NULL, min_workers INTEGER NOT NULL,"
        " max_workers INTEGER NOT NULL, asked TEXT NOT NULL, content_hash TEXT, item TEXT,"
        " configured_workers TEXT NOT NULL, registered_at REAL NOT NULL,"
        " UNIQUE (model, version))",
        "CREATE TABLE defaults (model TEXT PRIMARY KEY, version TEXT NOT NULL)",
        "CREATE TABLE items (sequence INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT UNIQUE)",
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    ),
    (
        "CREATE TABLE workflows (sequence INTEGER PRIMARY KEY AUTOINCREMENT,"
        " name TEXT NOT NULL, version TEXT NOT NULL, asked TEXT NOT NULL, content_hash TEXT,"
        " registered_at REAL NOT NULL, UNIQUE (name, version))",
    ),
)
LAYOUT: Final = len(MIGRATIONS)

PUT_VERSION: Final = (
    "INSERT INTO versions (model, version, min_workers, max_workers, asked, content_hash, item,"
    " configured_workers, registered_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (model, version) DO UPDATE SET min_workers = excluded.min_workers,"
    " max_workers = excluded.max_workers, asked = excluded.asked,"
    " content_hash = excluded.content_hash, item = excluded.item,"
    " configured_workers = excluded.configured_workers, registered_at = excluded.registered_at"
)
READ_VERSIONS: Final = (
    "SELECT model, version, min_workers, max_workers, asked, content_hash, item,"
    " configured_workers, registered_at FROM versions ORDER BY sequence"
)
PUT_WORKFLOW: Final = (
    "INSERT INTO workflows (name, version, asked, content_hash, registered_at)"
    " VALUES (?, ?, ?, ?, ?) ON CONFLICT (name, version) DO UPDATE SET asked = excluded.asked,"
    " content_hash = excluded.content_hash, registered_at = excluded.registered_at"
)
READ_WORKFLOWS: Final = (
    "SELECT name, version, asked, content_hash, registered_at FROM workflows ORDER BY sequence"
)


def version_row(version: DesiredVersion) -> tuple[Any, ...]:
    return (
        version.model,
        version.version,
        version.min_workers,
        version.max_workers,
        json.dumps(dict(version.asked)),
        version.content_hash,
        version.item,
        version.configured_workers,
        version.registered_at,
    )


def read_version(row: tuple[Any, ...]) -> DesiredVersion:
    """Raises ValueError, InvalidParameter."""
    model, version, low, high, asked, content_hash, item, configured, registered_at = row
    return DesiredVersion(
        model=check_model_name(text_of(model)),
        version=check_version(text_of(version)),
        min_workers=_count(low),
        max_workers=_count(high),
        asked=_asked(text_of(asked)),
        content_hash=None if content_hash is None else text_of(content_hash),
        item=None if item is None else text_of(item),
        configured_workers=text_of(configured),
        registered_at=float(registered_at),
    )


def workflow_row(workflow: DesiredWorkflow) -> tuple[Any, ...]:
    asked = json.dumps(dict(workflow.asked))
    return (
        workflow.name,
        workflow.version,
        asked,
        workflow.content_hash,
        workflow.registered_at,
    )


def read_workflow(row: tuple[Any, ...]) -> DesiredWorkflow:
    """Raises ValueError, InvalidParameter."""
    name, version, asked, content_hash, registered_at = row
    return DesiredWorkflow(
        name=check_model_name(text_of(name)),
        version=check_version(text_of(version)),
        asked=_asked(text_of(asked)),
        content_hash=None if content_hash is None else text_of(content_hash),
        registered_at=float(registered_at),
    )


def _asked(text: str) -> dict[str, Any]:
    asked = json.loads(text)
    if not isinstance(asked, dict) or not all(
        isinstance(value, (str, int, float)) for value in asked.values()
    ):
        raise ValueError("what was asked for is not readable")
    return asked


def text_of(value: Any) -> str:
    """Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= _MAX_WORKERS:
        raise ValueError(f"{value!r} is not a number of workers")
    return value
