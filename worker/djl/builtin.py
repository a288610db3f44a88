"""What DJL Serving's workflows have built in: functions of evaluated inputs.

Source: contracts/djl-serving.md 8.2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from stoker.worker.djl.inputs import CONTENT_TYPE, Input
from stoker.worker.djl.outputs import Output

_NDLIST: Final = "tensor/ndlist"


def identity(item: Input) -> Output:
    """What it was given."""
    output = Output()
    for key, value in item.content:
        output.add(value, key=key)
    if kind := item.get_property(CONTENT_TYPE):
        output.add_property("Content-Type", kind)
    return output


def ensemble(items: Sequence[Input]) -> Output:
    """The mean of the first content of each: of class probabilities, of numbers, of tensors.

    Raises:
        ValueError: They are not alike.
    """
    if not items:
        raise ValueError("there is nothing to ensemble")
    kinds = {str(item.get_property(CONTENT_TYPE) or "").partition(";")[0] for item in items}
    if kinds == {_NDLIST}:
        lists = [item.get_as_numpy() for item in items]
        if len({len(arrays) for arrays in lists}) != 1:
            raise ValueError("the lists of tensors to ensemble are not of one length")
        means = [sum(arrays) / len(arrays) for arrays in zip(*lists, strict=True)]
        return Output().add_as_numpy(means).add_property("Content-Type", _NDLIST)
    merged = _mean([json.loads(bytes(item.get_as_bytes())) for item in items])
    return Output().add_as_json(merged).add_property("Content-Type", "application/json")


def _mean(values: list[Any]) -> Any:
    first = values[0]
    if all(isinstance(value, dict) for value in values):
        if all({"className", "probability"} <= value.keys() for value in values):
            return {"className": first["className"], "probability": _mean_of(values, "probability")}
        if any(value.keys() != first.keys() for value in values):
            raise ValueError("the objects to ensemble do not have the same names")
        return {key: _mean([value[key] for value in values]) for key in first}
    if all(isinstance(value, list) for value in values):
        if _are_classes(values):
            return _merged_classes(values)
        if any(len(value) != len(first) for value in values):
            raise ValueError("the lists to ensemble are not of one length")
        return [_mean(list(row)) for row in zip(*values, strict=True)]
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return sum(values) / len(values)
    raise ValueError("what is to be ensembled is neither numbers nor probabilities of classes")


def _mean_of(values: list[Any], key: str) -> float:
    return float(sum(value[key] for value in values)) / len(values)


def _are_classes(values: list[Any]) -> bool:
    return all(
        isinstance(item, dict) and {"className", "probability"} <= item.keys()
        for value in values
        for item in value
    ) and any(values)


def _merged_classes(values: list[Any]) -> list[dict[str, Any]]:
    """Classifications: the most probable first; who does not name a class gives it 0."""
    sums: dict[str, float] = {}
    for value in values:
        for item in value:
            sums[item["className"]] = sums.get(item["className"], 0.0) + item["probability"]
    ranked = sorted(sums.items(), key=lambda pair: -pair[1])
    return [{"className": name, "probability": total / len(values)} for name, total in ranked]
