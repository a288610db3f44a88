"""The envelope of KServe's version 2, also called the Open Inference Protocol.

A request's inputs are the rows, each with its data in its shape; every result
becomes an output under its input's name.

Source: contracts/torchserve.md 7.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from stoker.handlers.envelopes import RowsEnvelope, document_of
from stoker.handlers.prediction import PredictionException

_BYTES: Final = "BYTES"
#: What Python's numbers are called; bool first, for it is an int as well.
_DATATYPES: Final = ((bool, "BOOL"), (int, "INT64"), (float, "FP64"))
_MAX_DIMENSIONS: Final = 32


class KServev2Envelope(RowsEnvelope):
    """Tensors in, tensors out.  `context.input_names` holds the inputs' names."""

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        super().__init__(handle_fn)
        self._names: list[list[str]] = []
        self._ids: list[str | None] = []

    def parse_input(self, data: list[Any]) -> list[Any]:
        self._names, self._ids = [[] for _ in data], [None for _ in data]
        rows = super().parse_input(data)
        self.context.input_request_id = self._ids[0]
        self.context.input_names = [name for names in self._names for name in names]
        return rows

    def read_rows(self, row: Any, i: int) -> list[Any]:
        document = document_of(row, "inputs")
        rows = [_row(item) for item in document["inputs"]]
        given = document.get("id")
        self._ids[i] = given if isinstance(given, str) else None
        self._names[i] = [item["name"] for item in rows]
        return rows

    def write_rows(self, results: list[Any], i: int) -> Any:
        manifest = (self.context.manifest or {}).get("model", {})
        names = [*self._names[i], *(f"output-{n}" for n in range(len(results)))]
        return {
            "id": self._ids[i] or self.context.get_request_id(i),
            "model_name": manifest.get("modelName") or self.context.model_name,
            "model_version": manifest.get("modelVersion"),
            "outputs": [_output(name, item) for name, item in zip(names, results, strict=False)],
        }


def _row(item: Any) -> dict[str, Any]:
    """An input, with its data in its shape.  Raises PredictionException."""
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise PredictionException("Every input must be a JSON object with a name.", 400)
    data, shape = item.get("data"), item.get("shape")
    if not isinstance(data, list):
        raise PredictionException(f"The input {item['name']!r} has no list of data.", 400)
    if item.get("datatype") == _BYTES:
        if not data:
            raise PredictionException(f"The input {item['name']!r} is empty.", 400)
        return {**item, "data": data[0]}
    return {**item, "data": _reshaped(item["name"], _flat(data), shape)}


def _flat(data: list[Any]) -> list[Any]:
    """Row by row, whether it came flat or nested."""
    while any(isinstance(item, list) for item in data):
        data = [inner for item in data for inner in (item if isinstance(item, list) else (item,))]
    return data


def _reshaped(name: str, values: list[Any], shape: Any) -> Any:
    if (
        not isinstance(shape, list)
        or len(shape) > _MAX_DIMENSIONS
        or not all(type(size) is int and size >= 0 for size in shape)
        or math.prod(shape) != len(values)
    ):
        said = f"The data of the input {name!r} do not have the shape {shape}."
        raise PredictionException(said, 400)
    for size in reversed(shape[1:]):
        if size:
            values = [values[i : i + size] for i in range(0, len(values), size)]
    return values


def _output(name: str, item: Any) -> Any:
    """A result as a tensor.  Whatever has a shape of its own keeps it."""
    if hasattr(item, "tolist"):
        item = item.tolist()
    if not isinstance(item, list):
        item = [item]
    values = _flat(item)
    return {"name": name, "datatype": _datatype(values), "data": values, "shape": _shape(item)}


def _shape(item: Any) -> list[int]:
    shape = []
    while isinstance(item, list):
        shape.append(len(item))
        item = item[0] if item else None
    return shape


def _datatype(values: list[Any]) -> str:
    kinds = {type(value) for value in values}
    for kind, name in _DATATYPES:
        if kinds == {kind}:
            return name
    return "FP64" if kinds and kinds <= {int, float} else _BYTES
