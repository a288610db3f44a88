"""The mms contract, where it is not TorchServe's: how a handler is found and started.

Batches, values and faults are the same in both peers, so `torchserve.py`
serves both.  A class's `initialize` may raise: the peer logs that and takes
the worker for ready, since many handlers try again with their first request;
so do we, and say it in describe as well.

Handlers of MMS 0.x are classes derived from `SingleNodeService`, built with
the model's name, folder, manifest and device.

Source: contracts/mms.md 10.1-10.4, 11.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from types import ModuleType
from typing import Any, Final

from stoker.wire.loading import LoadSpec
from stoker.worker.context import Context
from stoker.worker.contracts.torchserve import Entry

#: The home of the class that handlers of 0.x derive from, in our shim.
_SERVICES: Final = "mms.model_service.model_service"
_DEFAULT_FUNCTION: Final = "handle"


def is_legacy(spec: LoadSpec) -> bool:
    """Is its manifest one of MMS 0.x?"""
    manifest = spec.manifest
    return manifest is not None and "Model" in manifest and "model" not in manifest


def find_entry(
    module: ModuleType, function: str, context: Context, spec: LoadSpec
) -> tuple[Entry, str]:
    """The entry point, and what its start complained of ("" for nothing).

    Raises:
        ValueError: Neither one function nor one class to use.
        BaseException: Whatever a function raised that was called to load.
    """
    if is_legacy(spec):
        service = _legacy_service(module, context, spec)
        return service.handle, _initialise(service, context)
    named = getattr(module, function or _DEFAULT_FUNCTION, None)
    if named is not None and not inspect.isclass(named):
        named(None, context)
        return named, ""
    kind = named if named is not None else _only_class(module)
    service = kind()
    entry = getattr(service, "handle", None)
    if entry is None or getattr(service, "initialize", None) is None:
        raise ValueError(f"Expect handle and initialize methods in class {kind!r}")
    return entry, _initialise(service, context)


def _only_class(module: ModuleType) -> Any:
    classes = [
        item
        for item in vars(module).values()
        if inspect.isclass(item) and item.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ValueError(
            "Expected only one class in custom service code or a function entry point "
            f"{[item.__name__ for item in classes]}"
        )
    return classes[0]


def _initialise(service: Any, context: Context) -> str:
    """Call `initialize`; what it raised, in one line, or ""."""
    try:
        service.initialize(context)
    except Exception as error:
        traceback.print_exc()
        sys.stderr.write("stoker: initialize failed; the worker serves all the same, as MMS's\n")
        return " ".join(traceback.format_exception_only(error)[-1].split())
    return ""


def _legacy_service(module: ModuleType, context: Context, spec: LoadSpec) -> Any:
    """The first class of the module that derives from the peer's, built its way."""
    base: Any = importlib.import_module(_SERVICES).SingleNodeService
    for item in vars(module).values():
        if inspect.isclass(item) and issubclass(item, base) and item.__module__ == module.__name__:
            kind: Any = item
            return kind(spec.model, spec.model_dir, spec.manifest, spec.gpu_id)
    raise ValueError(f"No class derived from {base.__name__} found in {module.__name__}.")
