"""An echo that imports torch first: what a replacement worker costs a model that needs it."""

from __future__ import annotations

from typing import Any

import torch


def echo(data: list[dict[str, Any]] | None, context: Any) -> list[bytes]:
    assert torch.__version__
    return [] if data is None else [bytes(row["body"]) for row in data]
