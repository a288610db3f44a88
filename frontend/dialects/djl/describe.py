"""A version's record in the page's shape, and in the one of later releases.

`djl_describe` says which; an endpoint of several versions has only the later
one, which can show them all.  Pools are shown by device, as the peer's worker
groups.

Source: contracts/djl-serving.md 4.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from stoker.frontend.dialects.djl.shapes import DESCRIBED, NOTHING
from stoker.frontend.dialects.shared.records import (
    READY_STATES,
    instant,
    milliseconds,
    what_went_wrong,
)
from stoker.frontend.dialects.shared.replies import QUICK_S
from stoker.frontend.routes import Operation, Outcome, Parameter, Reply, Values
from stoker.frontend.workflow_picture import SVG_TYPE, draw_workflow
from stoker.settings import Settings

_CPU: Final = {"deviceType": "cpu", "deviceId": -1}


def describe_operation(settings: Settings) -> Operation:
    outcome = Outcome(200, "What it is and does.", DESCRIBED)
    write = _writer(is_array=settings.djl_describe == "array")
    picture = Outcome(200, "The picture of a workflow.", None, SVG_TYPE)
    say = "`svg`: a picture of a workflow's nodes and how they are doing."
    parameters = (Parameter("graph", "string", say),)
    return Operation("describe", _read, write, QUICK_S, (outcome, picture), parameters)


def acknowledge_operation() -> Operation:
    """OPTIONS on something that predicts: an empty object if it is there (3)."""
    outcome = Outcome(200, "It is there.", NOTHING)
    return Operation(
        "describe", _read, lambda outcome, arguments: Reply(200, {}), QUICK_S, (outcome,)
    )


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    version = path.get("model_version")
    return {
        "model": path["model_name"],
        "version": version,
        "all": version is None,
        "or_workflow": True,
        "graph": values.get("graph"),
    }


def _writer(*, is_array: bool) -> Callable[[dict[str, Any], dict[str, Any]], Reply]:
    def write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
        if "workflows" in outcome:
            if arguments.get("graph") == "svg":
                return Reply(200, draw_workflow(outcome["workflows"][0]), SVG_TYPE)
            return Reply(200, [_describe_graph(record) for record in outcome["workflows"]])
        records = outcome["versions"]
        if len(records) == 1 and not is_array:
            return Reply(200, describe_model(records[0]))
        return Reply(200, [describe_workflow(record) for record in records])

    return write


def status_word(record: Mapping[str, Any]) -> str:
    """How a version is, as describe and `/ping` say it."""
    if record["status"] == "Failed":
        return "FAILED"
    return "PENDING" if record["is_pending"] else str(record["status"])


def describe_model(record: Mapping[str, Any]) -> dict[str, Any]:
    """The page's object."""
    document: dict[str, Any] = {"modelName": record["model"], "modelUrl": record["url"] or ""}
    if not record["is_unversioned"]:
        document["version"] = record["version"]
    return {
        **document,
        "minWorkers": record["min_workers"],
        "maxWorkers": record["max_workers"],
        "batchSize": record["batch_size"],
        "maxBatchDelay": milliseconds(record["max_batch_delay_s"]),
        "maxIdleTime": round(record["max_idle_s"]),
        "queueLength": record["queue"]["pending"],
        "status": status_word(record),
        "loadedAtStartup": record["loaded_at_startup"],
        "workers": [
            {**_worker(worker), "gpu": worker["gpu_id"] is not None} for worker in record["workers"]
        ],
        **what_went_wrong(record),
    }


def describe_workflow(record: Mapping[str, Any]) -> dict[str, Any]:
    """An element of the later array: a workflow of one node."""
    document: dict[str, Any] = {"workflowName": record["model"]}
    if not record["is_unversioned"]:
        document["version"] = record["version"]
    model = {
        "modelName": record["model"],
        "modelUrl": record["url"] or "",
        "batchSize": record["batch_size"],
        "maxBatchDelayMillis": milliseconds(record["max_batch_delay_s"]),
        "maxIdleSeconds": round(record["max_idle_s"]),
        "queueSize": record["queue"]["capacity"],
        "requestInQueue": record["queue"]["pending"],
        "status": status_word(record),
        "loadedAtStartup": record["loaded_at_startup"],
        "workerGroups": _groups(record),
        **what_went_wrong(record),
    }
    return {**document, "models": [model]}


def _describe_graph(record: Mapping[str, Any]) -> dict[str, Any]:
    """A workflow of several nodes: each model once, however often it is called."""
    document: dict[str, Any] = {"workflowName": record["workflow"]}
    if not record["is_unversioned"]:
        document["version"] = record["version"]
    models = [describe_workflow(model)["models"][0] for model in record["models"]]
    return {**document, "models": models}


def _groups(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One for each device."""
    workers = {worker["id"]: _worker(worker) for worker in record["workers"]}
    return [
        {
            "device": _CPU
            if group["gpu_id"] is None
            else {"deviceType": "gpu", "deviceId": group["gpu_id"]},
            "minWorkers": group["min_workers"],
            "maxWorkers": group["max_workers"],
            "workers": [workers[number] for number in group["workers"]],
        }
        for group in record["groups"]
        if group["max_workers"] or group["workers"]
    ]


def _worker(worker: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": worker["id"],
        "startTime": instant(worker["started_at"]),
        "status": "READY" if worker["state"] in READY_STATES else "UNLOADING",
    }
