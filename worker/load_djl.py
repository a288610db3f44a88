"""From the options of a DJL archive to its loaded function.

Source: contracts/djl-serving.md 11 (`entryPoint`, `handler`), 13.1.
"""

from __future__ import annotations

import inspect
import os
import tempfile
from pathlib import Path, PurePath
from types import ModuleType
from typing import Final

from stoker.wire.arena_reader import ArenaReader
from stoker.wire.loading import LoadSpec
from stoker.worker.contracts.djl import OUT_OF_MEMORY, DjlContract, Function
from stoker.worker.djl.adapters import FUNCTIONS, Adapters
from stoker.worker.djl.functions import FunctionContract, WorkflowFunction
from stoker.worker.djl.inputs import Input
from stoker.worker.djl.outputs import Output, to_bytes
from stoker.worker.in_hand import BatchInHand
from stoker.worker.load import LoadRefused, enter_model_dir, import_users_module

#: The first code that is no success.
_NOT_LOADED: Final = 300


def open_djl(spec: LoadSpec, in_hand: BatchInHand, arena: ArenaReader) -> DjlContract:
    """Import the module, have it load its model, and put the contract around it.

    Raises:
        LoadRefused: The handler says that it cannot load.
        MemoryError: It says that it has no memory for that.
        BaseException: Whatever the user's code raised.
    """
    module, function = _import(spec)
    standing = standing_properties(spec)
    _initialise(function, spec, standing)
    return DjlContract(
        function,
        standing,
        in_hand,
        max_response_bytes=spec.max_response_bytes,
        arena=arena,
        adapters=_adapters(module, spec, standing) if spec.adapters_name else None,
        is_dynamic=str(spec.config.get("dynamicAdapters", "")).lower() == "true",
    )


def _adapters(module: ModuleType, spec: LoadSpec, standing: dict[str, str]) -> Adapters:
    """With those that are beside the model, and those registered since it was."""
    functions = {
        verb: function
        for verb, name in FUNCTIONS.items()
        if callable(function := getattr(module, name, None))
    }
    folder = Path(tempfile.gettempdir(), f"stoker-adapters-{os.geteuid()}")
    adapters = Adapters(functions, standing, folder / spec.adapters_name)
    adapters.load(standing["model_dir"])
    return adapters


def open_djl_function(spec: LoadSpec, in_hand: BatchInHand, arena: ArenaReader) -> DjlContract:
    """As `open_djl`, for a function of a workflow: there is nothing to initialise.

    Raises:
        LoadRefused: There is no such function.
        BaseException: Whatever the user's code raised.
    """
    function = WorkflowFunction(_import(spec)[1])
    standing = {"model_dir": spec.model_dir or os.getcwd()}
    return FunctionContract(
        function, standing, in_hand, max_response_bytes=spec.max_response_bytes, arena=arena
    )


def standing_properties(spec: LoadSpec) -> dict[str, str]:
    """What every call is told of the model and its device."""
    return {
        "model_dir": spec.model_dir or os.getcwd(),
        "device_id": str(-1 if spec.gpu_id is None else spec.gpu_id),
        "tensor_parallel_degree": str(spec.config.get("tensor_parallel_degree", 1)),
        "pipeline_parallel_degree": str(spec.config.get("pipeline_parallel_degree", 1)),
        "cluster_size": "1",
    }


def _import(spec: LoadSpec) -> tuple[ModuleType, Function]:
    entry_point, _, name = spec.handler.rpartition(":")
    enter_model_dir(spec)
    # A file of the archive, an absolute path, or a dotted name.
    is_file = entry_point.endswith(".py")
    module = import_users_module(PurePath(entry_point).stem if is_file else entry_point)
    function = getattr(module, name, None)
    if not callable(function):
        raise LoadRefused(f"{entry_point} has no function {name}")
    if inspect.iscoroutinefunction(function):
        raise LoadRefused(f"{spec.handler} is async, which is not supported yet")
    return module, function


def _initialise(function: Function, spec: LoadSpec, standing: dict[str, str]) -> None:
    """The first call: all options, no contents."""
    first = Input()
    for key, value in {**spec.config, **standing}.items():
        first.properties[key] = str(value)
    first.function_name = spec.handler.rpartition(":")[2]
    output = function(first)
    if not isinstance(output, Output) or output.code < _NOT_LOADED:
        return
    said = b" ".join(map(to_bytes, output.content.get_values())).decode("utf-8", "replace")
    text = f"Failed to initialize model: {output.message} {said}".strip()
    raise MemoryError(text) if output.code == OUT_OF_MEMORY else LoadRefused(text)
