"""TorchServe's snapshots (contract 9.5)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stoker.archives.snapshot import (
    Snapshot,
    SnapshotEntry,
    archive_name,
    read_snapshot,
    write_snapshot,
)
from stoker.errors import SettingsError

#: As the contract shows it.
DOCUMENT = """\
{"name": "20240131120000123-snapshot.cfg", "modelCount": 1, "created": 1706702400123,
 "models": {"demo": {"1.0": {"defaultVersion": true, "marName": "demo.mar", "minWorkers": 1,
   "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 100, "responseTimeout": 120,
   "startupTimeout": 120, "runtimeType": "python"}}}}
"""
DEMO = SnapshotEntry(
    "demo",
    "1.0",
    "demo.mar",
    is_default=True,
    min_workers=1,
    max_workers=1,
    batch_size=1,
    max_batch_delay_s=0.1,
    response_timeout_s=120,
    startup_timeout_s=120,
    runtime="python",
)


def test_the_peers_document_is_read() -> None:
    assert read_snapshot(DOCUMENT) == Snapshot("20240131120000123-snapshot.cfg", (DEMO,))


def test_ours_is_the_peers_to_the_letter() -> None:
    """
    Same keys, same order, same indent: people compare such files.
    """
    written = write_snapshot("20240131120000123-snapshot.cfg", 1706702400123, [DEMO])

    assert written == json.dumps(json.loads(DOCUMENT), indent=2)


def test_what_the_peer_loses_is_kept_beside_what_it_reads() -> None:
    """
    An address is reduced to a file's name there, and a handler of the request forgotten.
    """
    remote = SnapshotEntry(
        "r", "1", "https://h/x/r.mar?v=2", runtime="python", handler="h:f", parallel_level=2
    )

    written = write_snapshot("n", 0, [remote, DEMO])

    fields = json.loads(written)["models"]["r"]["1"]
    assert (fields["marName"], fields["parallelLevel"]) == ("r.mar", 2)
    read = read_snapshot(written).entries
    assert (read[0].url, read[0].handler) == (remote.url, remote.handler)
    assert read[1] == DEMO
    assert json.loads(written)["modelCount"] == 2


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("a.mar", "a.mar"),
        ("/s/a.mar", "a.mar"),
        ("folder/", "folder"),
        ("http://h/a.mar?x=/b", "a.mar"),
    ],
)
def test_an_archive_is_named_by_its_last_part(url: str, name: str) -> None:
    assert archive_name(url) == name


def test_numbers_below_zero_say_nothing_and_bounds_do_not_cross() -> None:
    """
    The peer writes -1 for what it does not know, and has let minimum exceed maximum.
    """
    entry = {"marName": "m", "minWorkers": 4, "maxWorkers": 2, "batchSize": -1, "runtimeType": ""}

    (read,) = read_snapshot(json.dumps({"models": {"m": {"1": entry}}})).entries

    assert (read.min_workers, read.max_workers) == (4, 4)
    assert read.batch_size is None
    assert read.runtime is None


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "[]",
        "{}",
        {"models": []},
        {"models": {"m": 1}},
        {"models": {"m": {"1": 1}}},
        {"models": {"m": {"1": {}}}},
        {"models": {"m": {"1": {"marName": 7}}}},
        {"models": {"m": {"1": {"marName": "m", "minWorkers": "1"}}}},
        {"models": {"m": {"1": {"marName": "m", "minWorkers": True}}}},
        {"models": {"m": {"1": {"marName": "m", "minWorkers": 1 << 40}}}},
        {"models": {"../m": {"1": {"marName": "m"}}}},
        {"models": {"m": {"": {"marName": "m"}}}},
        "[" * 100_000,
    ],
    ids=lambda document: str(document)[:40],
)
def test_what_cannot_be_a_snapshot_is_refused_by_name(document: Any) -> None:
    text = document if isinstance(document, str) else json.dumps(document)

    with pytest.raises(SettingsError, match="model_snapshot "):
        read_snapshot(text)
