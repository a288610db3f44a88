"""JSON schemas of what this dialect alone answers, for its OpenAPI documents.

Source: contracts/torchserve.md 3.6, 3.8.
"""

from __future__ import annotations

from typing import Final

from stoker.frontend.dialects.shared.shapes import (
    COUNT,
    INSTANT,
    NUMBER,
    TEXT,
    TRUTH,
    WHAT_WENT_WRONG,
    WORKER_GROUPS,
    exactly,
    list_of,
)

_WORKER: Final = exactly(
    {
        "id": TEXT,
        "startTime": INSTANT,
        "status": {"type": "string", "enum": ["READY", "UNLOADING"]},
        "memoryUsage": COUNT,
        "pid": NUMBER,
        "gpu": TRUTH,
        "gpuUsage": TEXT,
        "openSequences": COUNT,
        "requestsInHand": COUNT,
    },
    ("openSequences", "requestsInHand"),
)
_VERSION: Final = exactly(
    {
        **dict.fromkeys(("modelName", "modelVersion", "modelUrl", "engine", "runtime"), TEXT),
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
            COUNT,
        ),
        "parallelType": TEXT,
        "parallelLevel": COUNT,
        "deviceType": {"type": "string", "enum": ["cpu", "gpu"]},
        "deviceIds": list_of(COUNT),
        **dict.fromkeys(("continuousBatching", "useJobTicket", "useVenv", "stateful"), TRUTH),
        **dict.fromkeys(
            (
                "sequenceMaxIdleMSec",
                "sequenceTimeoutMSec",
                "maxNumSequence",
                "maxSequenceJobQueueSize",
            ),
            COUNT,
        ),
        "status": {"type": "string", "enum": ["Healthy", "Unhealthy", "Failed"]},
        "loadedAtStartup": TRUTH,
        "workers": list_of(_WORKER),
        "jobQueueStatus": exactly({"remainingCapacity": COUNT, "pendingRequests": COUNT}),
        **WORKER_GROUPS,
        **WHAT_WENT_WRONG,
        "customizedMetadata": {"type": "object"},
    },
    ("deviceIds", *WORKER_GROUPS, *WHAT_WENT_WRONG, "customizedMetadata"),
)

VERSIONS: Final = list_of(_VERSION)
READINESS: Final = exactly({"name": TEXT, "ready": TRUTH})

_WORKFLOW: Final = exactly(
    {
        **dict.fromkeys(("workflowName", "workflowUrl", "workflowDag"), TEXT),
        **dict.fromkeys(("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay"), COUNT),
    }
)
WORKFLOWS: Final = list_of(_WORKFLOW)
WORKFLOW_LIST: Final = exactly(
    {
        "nextPageToken": TEXT,
        "workflows": list_of(exactly({"workflowName": TEXT, "workflowUrl": TEXT})),
    },
    ("nextPageToken",),
)
