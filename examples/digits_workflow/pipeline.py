"""The whole computation without a server: picture, two networks, one opinion.

Both notations of the workflow are made of these functions, so what they answer
can be compared with what this file says.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

from PIL import Image

SIDE = 8


def preprocess(png: bytes | bytearray) -> list[float]:
    """PNG bytes of any size and colour to 64 numbers from 0 to 1, row by row."""
    with Image.open(io.BytesIO(png)) as picture:
        grey = picture.convert("L")
        if grey.size != (SIDE, SIDE):
            grey = grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return [level / 255 for level in grey.tobytes()]


def ensemble(opinions: Sequence[Sequence[float]]) -> dict[str, object]:
    """The mean of what the networks say, and the digit that is most probable by it."""
    mean = [sum(column) / len(opinions) for column in zip(*opinions, strict=True)]
    digit = max(range(len(mean)), key=mean.__getitem__)
    return {"digit": digit, "probabilities": [round(value, 6) for value in mean]}


def pack(numbers: Sequence[float]) -> bytes:
    """How numbers travel from node to node."""
    return json.dumps(numbers).encode()
