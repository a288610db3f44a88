"""`Input`: what a handler of DJL Serving is called with.

Source: contracts/djl-serving.md 13.2, 13.3, 13.5.
"""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any, Final

from stoker.worker.any_case import AnyCase
from stoker.worker.djl.pair_list import PairList
from stoker.worker.djl.tensors import read_ndlist, read_npz

#: The key of a body that is no form.
DATA: Final = "data"
CONTENT_TYPE: Final = "content-type"
BATCH_SIZE: Final = "batch_size"
_BATCHED: Final = re.compile(r"batch_(\d{3,})\.(.*)", re.DOTALL)


class Properties(AnyCase):
    """Properties by name, whatever the case; the first spelling of a name stays."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(self._spelling.get(name.lower(), name), value)


class Input:
    """Properties and contents of one request, or of several at once."""

    def __init__(self) -> None:
        self.properties = Properties()
        self.content = PairList()
        self.function_name: str | None = None

    # -- questions --------------------------------------------------------------

    def get_properties(self) -> dict[str, Any]:
        return self.properties

    def get_property(self, key: str) -> Any:
        """Whatever the case of its name; None if it is not there."""
        return self.properties.get(key)

    def get_content(self) -> PairList:
        return self.content

    def get_function_name(self) -> str | None:
        return self.function_name

    def is_empty(self) -> bool:
        """As when a handler is called for the first time, to load its model."""
        return self.content.is_empty()

    def contains_key(self, key: str) -> bool:
        return self.content.contains_key(key)

    def is_batch(self) -> bool:
        return BATCH_SIZE in self.properties

    def get_batch_size(self) -> int:
        return int(self.properties[BATCH_SIZE]) if self.is_batch() else 1

    def get_batches(self) -> list[Input]:
        """One Input for each request."""
        if not self.is_batch():
            return [self]
        batches = []
        for _ in range(self.get_batch_size()):
            item = Input()
            item.function_name = self.function_name
            batches.append(item)
        for name, value in self.properties.items():
            if match := _BATCHED.fullmatch(name):
                batches[int(match[1])].properties[match[2]] = value
            elif name != BATCH_SIZE:
                # What all have in common: the model and its device.
                for item in batches:
                    item.properties.setdefault(name, value)
        for key, value in self.content:
            if key is not None and (match := _BATCHED.fullmatch(key)):
                batches[int(match[1])].content.add(match[2], value)
        return batches

    # -- contents ---------------------------------------------------------------

    def get_as_bytes(self, key: str | int | None = None) -> Any:
        """The content of that name; without one `data`, else whatever came first.

        Raises:
            KeyError: There is nothing of that name, or nothing at all.
        """
        content = self.content
        if content.is_empty():
            raise KeyError("Input content is empty.")
        if key is None:
            value = content.get(DATA) if content.contains_key(DATA) else content.value_at(0)
        elif isinstance(key, str) and not content.contains_key(key):
            raise KeyError(f"requested data for key:{key} is not found!")
        else:
            value = content.get(key)
        return bytes(value) if isinstance(value, (bytearray, memoryview)) else value

    def get_as_string(self, key: str | int | None = None) -> str:
        value = self.get_as_bytes(key)
        return value.decode() if isinstance(value, bytes) else str(value)

    def get_as_json(self, key: str | int | None = None) -> Any:
        return json.loads(self.get_as_bytes(key))

    def get_as_image(self, key: str | int | None = None) -> Any:
        """With Pillow, which must be installed; never more pixels than it thinks safe."""
        from PIL import Image

        return Image.open(io.BytesIO(self.get_as_bytes(key))).convert("RGB")

    def get_as_numpy(self, key: str | int | None = None) -> list[Any]:
        """The arrays of a NDList or of a npz file."""
        return read_ndlist(self.get_as_bytes(key))

    def get_as_npz(self, key: str | int | None = None) -> list[Any]:
        return read_npz(self.get_as_bytes(key))

    def get_as_csv(self, key: str | int | None = None) -> list[dict[str, str]]:
        """A dict for each row, by the names in the first one."""
        return list(csv.DictReader(io.StringIO(self.get_as_string(key))))

    def get_data(self, key: str | int | None = None) -> Any:
        """What the content type promises: arrays, JSON, text, an image; else the bytes."""
        if self.content.is_empty():
            return None
        kind = str(self.get_property(CONTENT_TYPE) or "").lower()
        if kind.startswith("tensor/ndlist"):
            return self.get_as_numpy(key)
        if kind.startswith("tensor/npz"):
            return self.get_as_npz(key)
        if kind.startswith("application/json"):
            return self.get_as_json(key)
        if kind.startswith("text/"):
            return self.get_as_string(key)
        if kind.startswith("image/"):
            return self.get_as_image(key)
        return self.get_as_bytes(key) or (None if not kind else b"")


def join(inputs: list[Input]) -> Input:
    """Several requests as one Input, each name with the number of its request before it."""
    if len(inputs) == 1:
        return inputs[0]
    joined = Input()
    joined.properties[BATCH_SIZE] = str(len(inputs))
    for i, item in enumerate(inputs):
        for name, value in item.properties.items():
            joined.properties[f"batch_{i:03d}.{name}"] = value
        for key, value in item.content:
            joined.content.add(f"batch_{i:03d}.{DATA if key is None else key}", value)
    return joined
