"""A handler for archives of DJL's PyTorch engine: a TorchScript file and nothing else.

    tensor/ndlist, tensor/npz   arrays in, arrays out (`tensor/ndlist`, or npz for npz)
    application/json            a nested list of numbers, or a list of such with key
                                `inputs`, in; the same out

What DJL does around a model with translators is Java and does not run here; an
archive that names one is refused.

Source: contracts/djl-serving.md 10.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from stoker.worker.djl.inputs import CONTENT_TYPE, Input
from stoker.worker.djl.outputs import Output

_NDLIST: Final = "tensor/ndlist"
_NPZ: Final = "tensor/npz"
_JSON: Final = "application/json"
#: One process has one model.
_loaded: dict[str, Any] = {}


def handle(inputs: Input) -> Output | None:
    """Load the model with the first call, then compute."""
    if inputs.is_empty():
        _load(inputs)
        return None
    output = Output()
    for index, item in enumerate(inputs.get_batches()):
        kind = str(item.get_property(CONTENT_TYPE) or _NDLIST).partition(";")[0].strip().lower()
        results = _compute(_arrays(item, kind))
        _add(output, results, kind, index if inputs.is_batch() else None)
    return output


def model_file(model_dir: Path) -> Path | None:
    """`<folder>.pt`, else `model.pt`, else the only one there is."""
    for name in (f"{model_dir.name}.pt", "model.pt"):
        if (model_dir / name).is_file():
            return model_dir / name
    others = sorted(model_dir.glob("*.pt"))
    return others[0] if len(others) == 1 else None


def _load(inputs: Input) -> None:
    import torch

    device_id = int(inputs.get_property("device_id") or -1)
    device = torch.device("cpu" if device_id < 0 else f"cuda:{device_id}")
    path = model_file(Path(inputs.get_property("model_dir")))
    if path is None:
        raise FileNotFoundError("the archive has no TorchScript file (*.pt)")
    load: Any = torch.jit.load
    _loaded["model"] = load(str(path), map_location=device).eval()
    _loaded["device"] = device


def _arrays(item: Input, kind: str) -> list[Any]:
    import numpy

    if kind == _NPZ:
        return item.get_as_npz()
    if kind == _JSON:
        given = item.get_as_json()
        several = given["inputs"] if isinstance(given, dict) else [given]
        return [numpy.asarray(each, dtype=numpy.float32) for each in several]
    return item.get_as_numpy()


def _compute(arrays: list[Any]) -> list[Any]:
    import torch

    # A copy: torch wants memory that it may write to.
    tensors = [torch.tensor(array, device=_loaded["device"]) for array in arrays]
    with torch.inference_mode():
        results = _loaded["model"](*tensors)
    if isinstance(results, torch.Tensor):
        results = [results]
    elif isinstance(results, dict):
        results = list(results.values())
    return [each.cpu().numpy() for each in results]


def _add(output: Output, results: list[Any], kind: str, index: int | None) -> None:
    if kind == _NPZ:
        output.add_as_npz(results, batch_index=index)
    elif kind == _JSON:
        values = [each.tolist() for each in results]
        output.add_as_json(values[0] if len(values) == 1 else values, batch_index=index)
    else:
        kind = _NDLIST
        output.add_as_numpy(results, batch_index=index)
    output.add_property(CONTENT_TYPE, kind)
