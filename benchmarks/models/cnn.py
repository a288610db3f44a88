"""A small convolutional network over 3 x 64 x 64 bytes, one torch thread.

The same work for every server and for the bare loop: bodies in, one class
number as text per body out.  The weights are random but the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SIDE = 64
BODY_BYTES = 3 * SIDE * SIDE
CLASSES = 10


class Classifier:
    """Load once, then call with any number of bodies."""

    def __init__(self) -> None:
        import torch
        from torch import nn

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self._torch = torch
        self._network: Any = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, CLASSES),
        ).eval()

    def __call__(self, bodies: Sequence[bytes | bytearray]) -> list[str]:
        torch = self._torch
        with torch.inference_mode():
            joined = torch.frombuffer(bytearray(b"".join(bodies)), dtype=torch.uint8)
            pictures = joined.view(len(bodies), 3, SIDE, SIDE).float().div_(255)
            return [str(best) for best in self._network(pictures).argmax(dim=1).tolist()]
