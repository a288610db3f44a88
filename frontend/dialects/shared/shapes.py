"""JSON schemas that several dialects' OpenAPI documents are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "integer"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
TRUTH: Final[Schema] = {"type": "boolean"}
INSTANT: Final[Schema] = {"type": "string", "format": "date-time"}


def exactly(properties: Mapping[str, Schema], optional: Iterable[str] = ()) -> Schema:
    """An object with these properties and no others."""
    left_out = set(optional)
    required = [name for name in properties if name not in left_out]
    shape = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**shape, "required": required} if required else shape


def list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


STATUS: Final = exactly({"status": TEXT})
MODELS: Final = exactly(
    {
        "nextPageToken": TEXT,
        "models": list_of(exactly({"modelName": TEXT, "modelUrl": TEXT})),
    },
    ("nextPageToken",),
)

_FAILURE_FIELDS: Final[Mapping[str, Schema]] = {
    **dict.fromkeys(("message", "lastLine", "log", "exit", "likely"), TEXT),
    "attempts": COUNT,
    "deaths": COUNT,
}
#: Ours, and only what there is to say.
FAILURE: Final = exactly(_FAILURE_FIELDS, _FAILURE_FIELDS)
#: Also of a run of a workflow.
_ANY_FAILURE_FIELDS: Final[Mapping[str, Schema]] = {
    **_FAILURE_FIELDS,
    **dict.fromkeys(("node", "requestId", "cause"), TEXT),
}
_ANY_FAILURE: Final = exactly(_ANY_FAILURE_FIELDS, _ANY_FAILURE_FIELDS)
_DEATHS: Final = exactly(
    {
        "count": COUNT,
        "last": exactly(
            {
                "at": INSTANT,
                "worker": TEXT,
                "pid": NUMBER,
                "exit": TEXT,
                "likely": TEXT,
                "requestsTriedAgain": COUNT,
                "requestsFailed": COUNT,
            }
        ),
    }
)
_CONVICTION: Final = exactly(
    {"content": TEXT, "likely": TEXT, "deaths": COUNT, "refused": COUNT, "until": INSTANT}
)
#: The fence that holds.
_SANDBOX: Final = exactly(
    {
        "kind": {"type": "string", "enum": ["off", "rlimits", "bubblewrap"]},
        "network": TRUTH,
        "user": TEXT,
        "memoryBytes": COUNT,
        "noBubblewrap": TEXT,
    },
    ("user", "memoryBytes", "noBubblewrap"),
)
_AMOUNT: Final[Schema] = {"type": "number", "minimum": 0}
_MEASURED_FIELDS: Final[Mapping[str, Schema]] = {
    **dict.fromkeys(
        (
            "requestsPerSecond",
            "busyWorkers",
            "queueWaitP99Seconds",
            "batchSeconds",
            "batchFill",
            "workerStartSeconds",
        ),
        _AMOUNT,
    ),
    "queuedRequests": COUNT,
}
_MEASURED: Final = exactly(_MEASURED_FIELDS, _MEASURED_FIELDS)
#: Ours, where the number of workers follows the load.
_SCALING: Final = exactly(
    {
        "wantedWorkers": COUNT,
        "why": TEXT,
        "queueWaitTargetSeconds": _AMOUNT,
        "maxIdleSeconds": _AMOUNT,
        "measured": _MEASURED,
        "lastChange": exactly(
            {"at": INSTANT, "from": COUNT, "to": COUNT, "why": TEXT, "measured": _MEASURED}
        ),
    },
    ("lastChange",),
)
#: Of `records.worker_groups`.
WORKER_GROUPS: Final[Mapping[str, Schema]] = {
    "workerGroups": list_of(
        exactly(
            {
                "gpuId": COUNT,
                "minWorkers": COUNT,
                "maxWorkers": COUNT,
                "workers": list_of(TEXT),
            },
            ("gpuId",),
        )
    )
}
#: Of `records.what_went_wrong`; each may be left out.
WHAT_WENT_WRONG: Final[Mapping[str, Schema]] = {
    "scaling": _SCALING,
    "failure": FAILURE,
    "deaths": _DEATHS,
    "recycledWorkers": COUNT,
    "sandbox": _SANDBOX,
    "quarantine": list_of(_CONVICTION),
}


def error_schema(status: int | None, kinds: Iterable[str]) -> Schema:
    """Of `errors.error_document`; `failure` is ours."""
    code = NUMBER if status is None else {"type": "integer", "enum": [status]}
    kind = {"type": "string", "enum": sorted(set(kinds))}
    return exactly(
        {"code": code, "type": kind, "message": TEXT, "failure": _ANY_FAILURE},
        ("message", "failure"),
    )
