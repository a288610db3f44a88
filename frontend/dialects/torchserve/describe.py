"""A version's record as TorchServe shows it: contracts/torchserve.md 3.6 and A5.

`engine` and `status` are the pages' fields.  Ours appear only when there is
something to say: `failure` when the version cannot run, `deaths`,
`recycledWorkers`, and `quarantine` with the contents that killed workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from stoker.frontend.dialects.torchserve.replies import QUICK_S
from stoker.frontend.dialects.torchserve.shapes import VERSIONS
from stoker.frontend.routes import Operation, Outcome, Parameter, Reply, Values

#: States in which a worker has its handler loaded and takes requests.
_READY_STATES: Final = frozenset(("ready", "busy"))


_PARAMETERS: Final = (
    Parameter("customized", "boolean", "Ask the handler about itself, too.", default=False),
)


def describe_operation() -> Operation:
    return Operation(
        "describe",
        _read,
        _write,
        QUICK_S,
        (Outcome(200, "The versions asked for.", VERSIONS),),
        _PARAMETERS,
        question=(("describe", "True"),),
    )


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    version = path.get("model_version")
    is_all = version == "all"
    return {
        "model": path["model_name"],
        "version": None if is_all else version,
        "all": is_all,
        "asks_handler": values["customized"] and not is_all,
    }


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    documents = [describe_version(record) for record in outcome["versions"]]
    metadata = outcome.get("metadata")
    if metadata is not None:
        documents[0]["customizedMetadata"] = metadata
    return Reply(outcome.get("status", 200), documents)


def describe_version(record: dict[str, Any]) -> dict[str, Any]:
    """One element of the array that a describe answers."""
    document: dict[str, Any] = {
        "modelName": record["model"],
        "modelVersion": record["version"],
        "modelUrl": record["url"] or "",
        "engine": record.get("engine") or "Torch",
        "runtime": record["runtime"],
        "minWorkers": record["min_workers"],
        "maxWorkers": record["max_workers"],
        "batchSize": record["batch_size"],
        "maxBatchDelay": _milliseconds(record["max_batch_delay_s"]),
        "responseTimeout": round(record["response_timeout_s"]),
        "startupTimeout": round(record["startup_timeout_s"]),
        "maxRetryTimeoutInSec": round(record["max_retry_timeout_s"]),
        "clientTimeoutInMills": _milliseconds(record["client_timeout_s"] or 0),
        "parallelType": record["parallel_type"],
        "parallelLevel": record["parallel_level"],
        "deviceType": record["device_type"],
    }
    if record["device_ids"]:
        document["deviceIds"] = record["device_ids"]
    document |= {
        "continuousBatching": False,
        "useJobTicket": record.get("uses_job_tickets", False),
        "useVenv": record.get("uses_venv", False),
        "stateful": False,
        "sequenceMaxIdleMSec": 0,
        "sequenceTimeoutMSec": 0,
        "maxNumSequence": 0,
        "maxSequenceJobQueueSize": 0,
        "status": record["status"],
        "loadedAtStartup": record["loaded_at_startup"],
        "workers": [_describe_worker(worker) for worker in record["workers"]],
        "jobQueueStatus": {
            "remainingCapacity": max(0, record["queue"]["capacity"] - record["queue"]["pending"]),
            "pendingRequests": record["queue"]["pending"],
        },
    }
    if failure := record.get("failure"):
        document["failure"] = describe_failure(failure)
    if record.get("deaths"):
        document["deaths"] = _describe_deaths(record)
    if record.get("recycled"):
        document["recycledWorkers"] = record["recycled"]
    if quarantine := record.get("quarantine"):
        document["quarantine"] = [
            {**entry, "until": _instant(entry["until"])} for entry in quarantine
        ]
    return document


def _describe_deaths(record: dict[str, Any]) -> dict[str, Any]:
    """How many workers died, and how the last one did."""
    last = record["last_death"]
    return {
        "count": record["deaths"],
        "last": {
            "at": _instant(last["at"]),
            "worker": str(last["worker"]),
            "pid": last["pid"],
            "exit": last["exit"],
            "likely": last["likely"],
            "requestsTriedAgain": last["jobs_again"],
            "requestsFailed": last["jobs_failed"],
        },
    }


def describe_failure(failure: Mapping[str, Any]) -> dict[str, Any]:
    """Why a handler could not be loaded or a worker died, and which log has the rest."""
    shown = {
        "message": failure.get("message"),
        "lastLine": failure.get("last_line"),
        "log": failure.get("log"),
        "exit": failure.get("exit"),
        "likely": failure.get("likely"),
        "attempts": failure.get("attempts"),
        "deaths": failure.get("deaths"),
    }
    return {name: value for name, value in shown.items() if value}


def _describe_worker(worker: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": str(worker["id"]),
        "startTime": _instant(worker["started_at"]),
        "status": "READY" if worker["state"] in _READY_STATES else "UNLOADING",
        "memoryUsage": worker["memory_bytes"],
        "pid": worker["pid"],
        "gpu": worker["gpu_id"] is not None,
        "gpuUsage": worker["gpu_usage"] or "N/A",
    }


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _instant(unix_s: float) -> str:
    """Real UTC, where the peer writes local time with a literal Z (1.4)."""
    text = datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
