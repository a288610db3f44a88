"""Reading results out of MXNet arrays."""

from __future__ import annotations

from typing import Any

__all__ = ["top_probability"]


def top_probability(data: Any, labels: list[str], top: int = 5) -> list[dict[str, Any]]:
    """The most probable labels, best first."""
    values = [float(value) for value in data.asnumpy().flatten()]
    best = sorted(range(len(values)), key=lambda i: values[i], reverse=True)[:top]
    return [{"probability": values[i], "class": labels[i]} for i in best]
