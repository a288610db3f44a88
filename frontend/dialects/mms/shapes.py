"""JSON schema of a described model: contracts/mms.md 6.3."""

from __future__ import annotations

from typing import Final

from stoker.frontend.dialects.shared.shapes import (
    COUNT,
    INSTANT,
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
        "status": {"type": "string", "enum": ["READY", "LOADING", "UNLOADING"]},
        "gpu": TRUTH,
        "memoryUsage": COUNT,
    }
)
#: Ours, and only what there is to say.
_OURS: Final = {"numberGpu": COUNT, "preloadModel": TRUTH, **WORKER_GROUPS, **WHAT_WENT_WRONG}
MODEL: Final = exactly(
    {
        **dict.fromkeys(("modelName", "modelVersion", "modelUrl", "engine", "runtime"), TEXT),
        **dict.fromkeys(("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay"), COUNT),
        "status": {"type": "string", "enum": ["Healthy", "Unhealthy", "Failed"]},
        "loadedAtStartup": TRUTH,
        "workers": list_of(_WORKER),
        **_OURS,
    },
    ("engine", *_OURS),
)
