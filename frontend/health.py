"""Probes of our own, the same in every dialect: does the process live, and can it serve?

`live` is answered by the frontend process alone, so that a probe which restarts
what it finds dead does not restart a frontend for a supervisor that is just
being replaced.  `ready` asks the supervisor, on the way that predictions take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stoker.frontend.routes import ALL_METHODS, Fixed, Operation, Outcome, Reply, Route, Values

#: A supervisor that takes longer does not serve.
PROBE_S: Final = 3.0

READY_VERB: Final = "ready"


def _shape(name: str) -> Mapping[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "boolean"}},
        "required": [name],
        "additionalProperties": False,
    }


def _read(values: Values, path: Mapping[str, str]) -> dict[str, Any]:
    return {"model": path.get("model_name"), "version": path.get("model_version")}


def _write(outcome: dict[str, Any], arguments: dict[str, Any]) -> Reply:
    is_ready = bool(outcome["is_ready"])
    return Reply(200 if is_ready else 503, {"ready": is_ready})


LIVE: Final = Fixed(Reply(200, {"live": True}))
READY: Final = Operation(
    READY_VERB,
    lambda values, path: {"model": None, "version": None},
    _write,
    PROBE_S,
    (
        Outcome(200, "It takes requests, and what it loads at start is loaded.", _shape("ready")),
        Outcome(503, "It loads, stops, or has no supervisor just now.", _shape("ready")),
    ),
)
MODEL_READY: Final = Operation(
    READY_VERB,
    _read,
    _write,
    PROBE_S,
    (
        Outcome(200, "A worker of it takes requests.", _shape("ready")),
        Outcome(503, "None does just now.", _shape("ready")),
    ),
)


def health_routes() -> tuple[Route, ...]:
    """For the listeners that probes can reach."""
    rows: tuple[tuple[str, Fixed | Operation, str, str], ...] = (
        ("/health/live", LIVE, "health_live", "Does the process answer?"),
        ("/health/ready", READY, "health_ready", "Can the server serve?"),
        ("/health/ready/{model_name}", MODEL_READY, "health_model_ready", "Can a model serve?"),
        (
            "/health/ready/{model_name}/{model_version}",
            MODEL_READY,
            "version_health_model_ready",
            "Can a version of a model serve?",
        ),
    )
    return tuple(
        Route(ALL_METHODS, path, serves, name, say, is_probe=True)
        for path, serves, name, say in rows
    )
