"""JSON schemas of what this dialect answers, for its OpenAPI documents.

Source: contracts/torchserve.md 1.5, 3.6, 3.8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from stoker.frontend.routes import Outcome

Schema = Mapping[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "integer"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_TRUTH: Final[Schema] = {"type": "boolean"}


def exactly(properties: Mapping[str, Schema], optional: Iterable[str] = ()) -> Schema:
    """An object with these properties and no others."""
    left_out = set(optional)
    required = [name for name in properties if name not in left_out]
    shape = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**shape, "required": required} if required else shape


def _list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_INSTANT: Final[Schema] = {"type": "string", "format": "date-time"}
_FAILURE_FIELDS: Final[Mapping[str, Schema]] = {
    **dict.fromkeys(("message", "lastLine", "log", "exit", "likely"), _TEXT),
    "attempts": _COUNT,
    "deaths": _COUNT,
}
#: Ours, and only what there is to say.
FAILURE: Final = exactly(_FAILURE_FIELDS, _FAILURE_FIELDS)
_DEATHS: Final = exactly(
    {
        "count": _COUNT,
        "last": exactly(
            {
                "at": _INSTANT,
                "worker": _TEXT,
                "pid": _NUMBER,
                "exit": _TEXT,
                "likely": _TEXT,
                "requestsTriedAgain": _COUNT,
                "requestsFailed": _COUNT,
            }
        ),
    }
)
_CONVICTION: Final = exactly(
    {"content": _TEXT, "likely": _TEXT, "deaths": _COUNT, "refused": _COUNT, "until": _INSTANT}
)
_WORKER: Final = exactly(
    {
        "id": _TEXT,
        "startTime": _INSTANT,
        "status": {"type": "string", "enum": ["READY", "UNLOADING"]},
        "memoryUsage": _COUNT,
        "pid": _NUMBER,
        "gpu": _TRUTH,
        "gpuUsage": _TEXT,
    }
)
_VERSION: Final = exactly(
    {
        **dict.fromkeys(("modelName", "modelVersion", "modelUrl", "engine", "runtime"), _TEXT),
        **dict.fromkeys(
            (
                "minWorkers",
                "maxWorkers",
                "batchSize",
                "maxBatchDelay",
                "responseTimeout",
                "startupTimeout",
                "maxRetryTimeoutInSec",
                "clientTimeoutInMills",
            ),
            _COUNT,
        ),
        "parallelType": _TEXT,
        "parallelLevel": _COUNT,
        "deviceType": {"type": "string", "enum": ["cpu", "gpu"]},
        "deviceIds": _list_of(_COUNT),
        **dict.fromkeys(("continuousBatching", "useJobTicket", "useVenv", "stateful"), _TRUTH),
        **dict.fromkeys(
            (
                "sequenceMaxIdleMSec",
                "sequenceTimeoutMSec",
                "maxNumSequence",
                "maxSequenceJobQueueSize",
            ),
            _COUNT,
        ),
        "status": {"type": "string", "enum": ["Healthy", "Unhealthy", "Failed"]},
        "loadedAtStartup": _TRUTH,
        "workers": _list_of(_WORKER),
        "jobQueueStatus": exactly({"remainingCapacity": _COUNT, "pendingRequests": _COUNT}),
        "failure": FAILURE,
        "deaths": _DEATHS,
        "recycledWorkers": _COUNT,
        "quarantine": _list_of(_CONVICTION),
        "customizedMetadata": {"type": "object"},
    },
    ("deviceIds", "failure", "deaths", "recycledWorkers", "quarantine", "customizedMetadata"),
)
_MODEL: Final = exactly({"modelName": _TEXT, "modelUrl": _TEXT})

STATUS: Final = exactly({"status": _TEXT})
VERSIONS: Final = _list_of(_VERSION)
MODELS: Final = exactly({"nextPageToken": _TEXT, "models": _list_of(_MODEL)}, ("nextPageToken",))
READINESS: Final = exactly({"name": _TEXT, "ready": _TRUTH})

#: What calls have in common that may be answered before their workers are there.
STAFFING: Final = (
    Outcome(200, "Done; the workers are ready.", STATUS),
    Outcome(202, "Accepted; workers are being started or stopped.", STATUS),
    Outcome(206, "Waited long enough: some workers are still to come.", STATUS),
)


def error_schema(status: int | None, kinds: Iterable[str]) -> Schema:
    """Of the error document (1.5); `failure` is ours, of a failed load alone."""
    code = _NUMBER if status is None else {"type": "integer", "enum": [status]}
    kind = {"type": "string", "enum": sorted(set(kinds))}
    return exactly(
        {"code": code, "type": kind, "message": _TEXT, "failure": FAILURE},
        ("message", "failure"),
    )
