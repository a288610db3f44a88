"""KServe's ways in: its version 1, its version 2, and the Open Inference Protocol.

What a payload looks like is the service envelope's business, not the route's.

Source: contracts/torchserve.md 2.1, 2.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.dialects.shared.replies import QUICK_S
from stoker.frontend.dialects.torchserve.shapes import READINESS
from stoker.frontend.health import LIVE, READY
from stoker.frontend.routes import (
    ALL_METHODS,
    ANY,
    Fixed,
    Operation,
    Outcome,
    Prediction,
    Reply,
    Route,
    Values,
)

#: What clients read as the peer's version.
PEER_VERSION: Final = "0.12.0"

_PREDICT: Final = Prediction(headers=(("explain", "False"),))
_EXPLAIN: Final = Prediction(headers=(("explain", "True"),), is_alone=True)

_SERVER: Final = Reply(
    200,
    # The misspelt key is the peer's, and what clients of the peer look for.
    {"name": "Torchserve", "version": PEER_VERSION, "extenstion": ["kserve", "kubeflow"]},
)
_READINESS: Final = Outcome(200, "Whether it has any worker.", READINESS)
_NO_VERSIONS: Final = Fixed(Reply(501, {"error": "Model versioning is not yet supported."}))


def kserve_routes() -> tuple[Route, ...]:
    """Predictions: the default version only."""
    v1, v2 = "/v1/models/{model_name}", "/v2/models/{model_name}"
    return (
        Route(ANY, f"{v1}:predict", _PREDICT, "v1_predict", "Predict, as KServe 1 asks."),
        Route(ANY, f"{v1}:explain", _EXPLAIN, "v1_explain", "Explain, as KServe 1 asks."),
        Route(ANY, f"{v2}/infer", _PREDICT, "v2_infer", "Predict, as KServe 2 asks."),
        Route(ANY, f"{v2}/explain", _EXPLAIN, "v2_explain", "Explain, as KServe 2 asks."),
    )


def open_inference_routes() -> tuple[Route, ...]:
    """What `ts_open_inference_protocol` adds."""
    ready, live = "/v2/health/ready", "/v2/health/live"
    versions = "/v2/models/{model_name}/versions"
    return (
        Route(ALL_METHODS, ready, READY, "v2_ready", "Is the server ready?", is_probe=True),
        Route(ALL_METHODS, live, LIVE, "v2_live", "Is the server live?", is_probe=True),
        Route(ALL_METHODS, "/v2", Fixed(_SERVER), "v2_server", "What the server is."),
        Route(ALL_METHODS, versions, _NO_VERSIONS),
        Route(ALL_METHODS, f"{versions}/{{rest:path}}", _NO_VERSIONS),
    )


def readiness_route() -> Route:
    """On the management listener: has the model any worker, in whatever state?"""
    readiness = Operation("describe", _read, _write, QUICK_S, (_READINESS,))
    return Route(("GET",), "/v1/models/{model_name}", readiness, "v1_ready", "Is a model ready?")


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    return {"model": path["model_name"], "version": None, "all": False}


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    (record,) = outcome["versions"]
    return Reply(200, {"name": arguments["model"], "ready": bool(record["workers"])})
