"""Getting a torch model out of an archive's files.

State dicts are read with `weights_only=True`: a pickle can run anything.
An archive that needs more says `handler: {weights_only: false}` in its
model-config, and its operator has then decided to trust it.

Source: contracts/torchserve.md 7.4, 11 (`torch.load` runs pickle).
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from stoker.handlers.modules import list_classes_from_module

if TYPE_CHECKING:
    import torch


def load_eager(
    model_file: str, weights_path: str | None, device: torch.device, *, weights_only: bool
) -> torch.nn.Module:
    """Instantiate the one class that `model_file` defines and give it its weights.

    Raises:
        RuntimeError: The file does not define exactly one class.
    """
    import torch

    module = importlib.import_module(os.path.basename(model_file).removesuffix(".py"))
    classes = list_classes_from_module(module)
    if len(classes) != 1:
        names = [item.__name__ for item in classes]
        raise RuntimeError(f"Expected only one class as model definition. {names}")
    model: torch.nn.Module = classes[0]()
    if weights_path is not None:
        weights = torch.load(weights_path, map_location=device, weights_only=weights_only)
        model.load_state_dict(weights)
    return model


def load_torchscript(weights_path: str, device: torch.device) -> Any:
    import torch

    return torch.jit.load(weights_path, map_location=device)  # type: ignore[no-untyped-call]


def load_exported(weights_path: str, device: torch.device) -> Any:
    """A program that `torch.export.save` wrote."""
    import torch

    return torch.export.load(weights_path).module().to(device)


def load_aot_compiled(weights_path: str, device: torch.device) -> Any:
    """A shared library that torch's export compiled ahead of time."""
    import torch

    return torch._export.aot_load(weights_path, device.type)


def load_onnx(weights_path: str) -> Any:
    onnxruntime = importlib.import_module("onnxruntime")
    return onnxruntime.InferenceSession(
        weights_path, providers=onnxruntime.get_available_providers()
    )
