"""A version's record as TorchServe shows it: contracts/torchserve.md 3.6 and A5.

`engine` and `status` are the pages' fields.  Ours appear only when there is
something to say: `failure` when the version cannot run, `deaths`,
`recycledWorkers`, `quarantine` with the contents that killed workers, and
`openSequences` of a worker whose version has sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.dialects.shared.records import (
    READY_STATES,
    instant,
    milliseconds,
    what_went_wrong,
    worker_groups,
)
from stoker.frontend.dialects.shared.replies import QUICK_S
from stoker.frontend.dialects.torchserve.shapes import VERSIONS
from stoker.frontend.routes import Operation, Outcome, Parameter, Reply, Values

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
        "maxBatchDelay": milliseconds(record["max_batch_delay_s"]),
        "responseTimeout": round(record["response_timeout_s"]),
        "startupTimeout": round(record["startup_timeout_s"]),
        "maxRetryTimeoutInSec": round(record["max_retry_timeout_s"]),
        "clientTimeoutInMills": milliseconds(record["client_timeout_s"] or 0),
        "parallelType": record["parallel_type"],
        "parallelLevel": record["parallel_level"],
        "deviceType": record["device_type"],
    }
    if record["device_ids"]:
        document["deviceIds"] = record["device_ids"]
    document |= {
        "continuousBatching": record.get("is_continuous", False),
        "useJobTicket": record.get("uses_job_tickets", False),
        "useVenv": record.get("uses_venv", False),
        **_describe_sequences(record.get("sequences")),
        "status": record["status"],
        "loadedAtStartup": record["loaded_at_startup"],
        "workers": [_describe_worker(worker) for worker in record["workers"]],
        "jobQueueStatus": {
            "remainingCapacity": max(0, record["queue"]["capacity"] - record["queue"]["pending"]),
            "pendingRequests": record["queue"]["pending"],
        },
    }
    return document | worker_groups(record) | what_went_wrong(record)


def _describe_sequences(sequences: Mapping[str, Any] | None) -> dict[str, Any]:
    """All zero without them, as in the peer (A5)."""
    limits = sequences or {"max_idle_s": 0, "timeout_s": 0, "max_open": 0, "max_waiting": 0}
    return {
        "stateful": sequences is not None,
        "sequenceMaxIdleMSec": milliseconds(limits["max_idle_s"]),
        "sequenceTimeoutMSec": milliseconds(limits["timeout_s"]),
        "maxNumSequence": limits["max_open"],
        "maxSequenceJobQueueSize": limits["max_waiting"],
    }


def _describe_worker(worker: dict[str, Any]) -> dict[str, Any]:
    document = {
        "id": str(worker["id"]),
        "startTime": instant(worker["started_at"]),
        "status": "READY" if worker["state"] in READY_STATES else "UNLOADING",
        "memoryUsage": worker["memory_bytes"],
        "pid": worker["pid"],
        "gpu": worker["gpu_id"] is not None,
        "gpuUsage": worker["gpu_usage"] or "N/A",
    }
    if "sequences" in worker:
        document["openSequences"] = worker["sequences"]
    if "in_hand" in worker:
        document["requestsInHand"] = worker["in_hand"]
    return document
