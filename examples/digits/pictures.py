"""One picture of a digit, between PNG bytes and the tensor the network wants."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

#: scikit-learn's digits count ink from 0 to 16; a PNG holds 0 to 255.
INK_LEVELS = 16


def write_png(ink: NDArray[np.float64], path: Path) -> None:
    """Write 8x8 ink counts as a grey PNG."""
    grey = np.rint(ink * (255 / INK_LEVELS)).astype(np.uint8)
    Image.fromarray(grey).save(path)


def read(body: bytes | bytearray | list[list[float]]) -> torch.Tensor:
    """Whatever a client sent, PNG or JSON rows, to a (1, 8, 8) tensor from 0 to 1."""
    return from_rows(body) if isinstance(body, list) else read_png(body)


def read_png(png: bytes | bytearray) -> torch.Tensor:
    """PNG bytes of any size and colour to a (1, 8, 8) tensor from 0 to 1."""
    with Image.open(io.BytesIO(png)) as picture:
        grey = picture.convert("L")
        if grey.size != (8, 8):
            grey = grey.resize((8, 8), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(grey, dtype=np.float32) / 255).unsqueeze(0)


def from_rows(rows: list[list[float]]) -> torch.Tensor:
    """Eight rows of eight ink counts to a (1, 8, 8) tensor from 0 to 1."""
    return torch.tensor(rows, dtype=torch.float32).reshape(1, 8, 8) / INK_LEVELS
