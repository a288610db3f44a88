"""The network of `cnn.py` as a handler of stoker, TorchServe and MMS."""

from __future__ import annotations

from typing import Any

from cnn import Classifier

_classifier: Classifier | None = None


def classify(data: list[dict[str, Any]] | None, context: Any) -> list[str]:
    global _classifier
    if _classifier is None:
        _classifier = Classifier()
    return [] if data is None else _classifier([row["body"] for row in data])
