"""A model's record as MMS shows it, an object: contracts/mms.md 6.3.

`status` is the pages' field.  Ours appear only when there is something to say:
`numberGpu` and `preloadModel` where they were asked for, and what went wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.frontend.dialects.mms.shapes import MODEL
from stoker.frontend.dialects.shared.records import (
    READY_STATES,
    instant,
    milliseconds,
    what_went_wrong,
    worker_groups,
)
from stoker.frontend.dialects.shared.replies import QUICK_S
from stoker.frontend.routes import Operation, Outcome, Reply, Values


def describe_operation() -> Operation:
    outcome = Outcome(200, "The model.", MODEL)
    return Operation("describe", _read, _write, QUICK_S, (outcome,))


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    return {"model": path["model_name"], "version": None, "all": False}


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    (record,) = outcome["versions"]
    return Reply(200, describe_model(record))


def describe_model(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a describe answers."""
    document: dict[str, Any] = {
        "modelName": record["model"],
        "modelVersion": record["version"],
        "modelUrl": record["url"] or "",
    }
    if engine := record.get("manifest_engine"):
        document["engine"] = engine
    document |= {
        "runtime": record["runtime"],
        "minWorkers": record["min_workers"],
        "maxWorkers": record["max_workers"],
        "batchSize": record["batch_size"],
        "maxBatchDelay": milliseconds(record["max_batch_delay_s"]),
        "status": record["status"],
        "loadedAtStartup": record["loaded_at_startup"],
        "workers": [_describe_worker(worker) for worker in record["workers"]],
    }
    if record.get("number_gpu") is not None:
        document["numberGpu"] = record["number_gpu"]
    if record.get("is_preloaded"):
        document["preloadModel"] = True
    return document | worker_groups(record) | what_went_wrong(record)


def _describe_worker(worker: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(worker["id"]),
        "startTime": instant(worker["started_at"]),
        "status": _status(worker["state"]),
        "gpu": worker["gpu_id"] is not None,
        "memoryUsage": worker["memory_bytes"],
    }


def _status(state: str) -> str:
    """The peer says READY of a worker that has only been started, too."""
    if state in READY_STATES:
        return "READY"
    return "LOADING" if state in ("starting", "loading") else "UNLOADING"
