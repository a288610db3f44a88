"""`djl_python.encode_decode`: contents to values and back, by content type.

Source: contracts/djl-serving.md 13.8.
"""

from __future__ import annotations

from typing import Any

from stoker.worker.djl.inputs import CONTENT_TYPE, Input
from stoker.worker.djl.outputs import Output


def decode(inputs: Input, content_type: str | None = None, key: str | None = None) -> Any:
    """What the content type promises; without one the request's own counts."""
    if content_type:
        inputs.properties[CONTENT_TYPE] = content_type
    return inputs.get_data(key)


def encode(outputs: Output, prediction: Any, accept: str, key: str | None = None) -> None:
    """Add a result in the form that the client accepts.  Raises ValueError for others."""
    kind = accept.partition(";")[0].strip().lower()
    if kind in ("", "*/*"):
        kind = "application/json"
    if kind == "tensor/ndlist":
        outputs.add_as_numpy(prediction, key)
    elif kind == "tensor/npz":
        outputs.add_as_npz(prediction, key)
    elif kind.startswith("application/json"):
        outputs.add_as_json(prediction, key)
    elif kind.startswith("text/"):
        outputs.add(prediction if isinstance(prediction, str) else str(prediction), key)
    else:
        raise ValueError(f"{accept} cannot be encoded")
    outputs.add_property(CONTENT_TYPE, kind)
