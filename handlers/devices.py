"""Which device a torch handler computes on.

Source: contracts/torchserve.md 7.4, device choice.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def choose_device(gpu_id: int | None) -> torch.device:
    """CUDA, XPU or MPS when the worker was given a GPU; XLA if installed; else the CPU."""
    import torch

    if gpu_id is not None and torch.cuda.is_available():
        return torch.device(f"cuda:{gpu_id}")
    if gpu_id is not None and os.environ.get("TS_IPEX_GPU_ENABLE") == "true":
        return torch.device(f"xpu:{gpu_id}")
    if gpu_id is not None and torch.backends.mps.is_available():
        return torch.device("mps")
    if importlib.util.find_spec("torch_xla") is not None:
        xla_model = importlib.import_module("torch_xla.core.xla_model")
        device: torch.device = xla_model.xla_device()
        return device
    return torch.device("cpu")
