"""`mms.service`: what user code takes from it."""

from collections.abc import Iterable
from typing import Any

from stoker.handlers.prediction import PredictionException

__all__ = ["PredictionException", "emit_metrics"]


def emit_metrics(metrics: Iterable[Any] | dict[str, Any]) -> None:
    """Nothing is left to do: a metric says what it holds on every update."""


def __getattr__(name: str) -> Any:
    if name == "Service":
        raise ImportError("mms.service.Service is the peer's inside; stoker's worker replaces it")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
