"""Class numbers to names, as archives write them in `index_to_name.json`.

Source: contracts/torchserve.md 7.4 and 7.7.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def load_label_mapping(mapping_file_path: str | Path) -> dict[str, str] | None:
    """Read a mapping file; None when there is none.

    Values may be names, lists whose last item is the name, or the whole file
    `{"object_type_names": [...]}`.

    Raises:
        ValueError: The file holds something else.
    """
    path = Path(mapping_file_path)
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f'{path.name} must hold one JSON object like {{"0": "name"}}')
    if "object_type_names" in content:
        return {str(i): str(name) for i, name in enumerate(content["object_type_names"])}
    return {key: _name(path.name, key, value) for key, value in content.items()}


def _name(file: str, key: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        return str(value[-1])
    raise ValueError(f"{file}: the value of {key!r} must be a name or a list that ends with one")


def map_class_to_label(
    probs: Sequence[Sequence[float]],
    mapping: Mapping[str, str] | None = None,
    lbl_classes: Iterable[Iterable[int]] | None = None,
) -> list[dict[str, float]]:
    """For each row of probabilities a dict from label to probability.

    Args:
        lbl_classes: Class numbers of each row; without it 0, 1, 2, ...
    """
    if not isinstance(probs, list):
        raise TypeError("probs must be a list of lists of probabilities")
    names = {} if mapping is None else mapping
    rows = [range(len(row)) for row in probs] if lbl_classes is None else lbl_classes
    return [
        {
            names.get(str(number), str(number)): prob
            for number, prob in zip(numbers, row, strict=False)
        }
        for numbers, row in zip(rows, probs, strict=True)
    ]
