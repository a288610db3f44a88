"""Which device a torch handler computes on, and what is done for it.

Source: contracts/torchserve.md 7.4, device choice.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def optimise_for_intel(model: torch.nn.Module) -> torch.nn.Module:
    """Hand the model to Intel's extension where the operator wants that (`ipex_enable`)."""
    if os.environ.get("TS_IPEX_ENABLE") != "true":
        return model
    try:
        ipex = importlib.import_module("intel_extension_for_pytorch")
    except ImportError as error:
        sys.stderr.write(f"stoker: ipex_enable is without effect: {error}\n")
        return model
    optimised: torch.nn.Module = ipex.optimize(model)
    return optimised


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
