"""JSON schemas of what this dialect answers, for its OpenAPI documents.

Source: contracts/djl-serving.md 2, 3.1, 4.4, 4.6, 13.4.
"""

from __future__ import annotations

from typing import Any, Final

from stoker.frontend.dialects.shared.shapes import (
    COUNT,
    INSTANT,
    NUMBER,
    STATUS,
    TEXT,
    TRUTH,
    WHAT_WENT_WRONG,
    exactly,
    list_of,
)
from stoker.frontend.routes import Outcome

_STATUSES: Final = {"type": "string", "enum": ["Healthy", "Unhealthy", "PENDING", "FAILED"]}
_WORKER: Final = {"id": NUMBER, "startTime": INSTANT, "status": TEXT}
_PAGES_MODEL: Final = exactly(
    {
        "modelName": TEXT,
        "modelUrl": TEXT,
        "version": TEXT,
        **dict.fromkeys(
            ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "maxIdleTime"), COUNT
        ),
        "queueLength": COUNT,
        "status": _STATUSES,
        "loadedAtStartup": TRUTH,
        "workers": list_of(exactly({**_WORKER, "gpu": TRUTH})),
        **WHAT_WENT_WRONG,
    },
    ("version", *WHAT_WENT_WRONG),
)
_GROUP: Final = exactly(
    {
        "device": exactly({"deviceType": TEXT, "deviceId": NUMBER}),
        "minWorkers": COUNT,
        "maxWorkers": COUNT,
        "workers": list_of(exactly(_WORKER)),
    }
)
_MODEL: Final = exactly(
    {
        "modelName": TEXT,
        "modelUrl": TEXT,
        **dict.fromkeys(
            ("batchSize", "maxBatchDelayMillis", "maxIdleSeconds", "queueSize", "requestInQueue"),
            COUNT,
        ),
        "status": _STATUSES,
        "loadedAtStartup": TRUTH,
        "workerGroups": list_of(_GROUP),
        **WHAT_WENT_WRONG,
    },
    WHAT_WENT_WRONG,
)
_WORKFLOW: Final = exactly(
    {"workflowName": TEXT, "version": TEXT, "models": list_of(_MODEL)}, ("version",)
)
WORKFLOWS_DESCRIBED: Final = list_of(_WORKFLOW)
DESCRIBED: Final = {"anyOf": [_PAGES_MODEL, WORKFLOWS_DESCRIBED]}
MODELS: Final = exactly(
    {
        "nextPageToken": TEXT,
        "models": list_of(
            exactly(
                {"modelName": TEXT, "version": TEXT, "modelUrl": TEXT, "status": TEXT}, ("version",)
            )
        ),
    },
    ("nextPageToken",),
)
WORKFLOWS: Final = exactly(
    {
        "nextPageToken": TEXT,
        "workflows": list_of(exactly({"workflowName": TEXT, "version": TEXT}, ("version",))),
    },
    ("nextPageToken",),
)
PING: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": exactly({"status": _STATUSES}),
}
HANDLER_ERROR: Final = exactly({"code": NUMBER, "message": TEXT, "error": TEXT})
ADAPTER: Final = exactly({"name": TEXT, "src": TEXT, "preload": TRUTH, "pin": TRUTH})
ADAPTERS: Final = exactly({"nextPageToken": TEXT, "adapters": list_of(ADAPTER)}, ("nextPageToken",))
NOTHING: Final = exactly({})

REGISTERED: Final = (
    Outcome(200, "Registered; its workers are ready.", STATUS),
    Outcome(202, "Accepted; describe shows how far it is.", STATUS),
)
SCALED: Final = (
    Outcome(200, "Done; the workers are ready.", STATUS),
    Outcome(202, "Accepted; workers are being started or stopped.", STATUS),
)
