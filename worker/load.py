"""From a handler's name to something one can call.

Source: contracts/torchserve.md 6.5 (paths), 7.1 (resolution).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import AsyncGenerator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import stoker.compat
from stoker.wire.frames import LoadFailed
from stoker.wire.loading import ASYNC, LoadSpec
from stoker.worker.context import Context
from stoker.worker.contracts import faults
from stoker.worker.contracts.torchserve import Entry
from stoker.worker.measurements import Pending
from stoker.worker.metrics import MetricsCache, MetricTypes

#: What archives read as the peer's version.
SERVER_VERSION = "0.12.0"
MMS = "mms"
MMS_VERSION = "1.1.11"
BUILT_IN = "ts.torch_handler"
ENVELOPES = "ts.torch_handler.request_envelope"
DEFAULT_FUNCTION = "handle"
MAX_LAST_LINE = 1000


class LoadRefused(Exception):
    """A handler said itself that it cannot load; its words may reach clients."""


def make_metrics(spec: LoadSpec) -> MetricsCache:
    """With the metrics that the configuration names, so that `get_metric` finds them."""
    known = None if spec.detects_metrics else [row[0] for row in spec.metrics]
    pending = None if spec.prints_metrics else Pending(known)
    if spec.contract == MMS:
        # Only here: most workers serve nothing of MMS's.
        from stoker.worker.mms_metrics import MetricsStore

        metrics: MetricsCache = MetricsStore(None, spec.model, pending)
    else:
        metrics = MetricsCache(spec.model, pending=pending)
    for name, kind, unit, labels in spec.metrics:
        metrics.add_metric_to_cache(name, unit, labels, MetricTypes(kind))
    return metrics


def make_context(spec: LoadSpec) -> Context:
    metrics = make_metrics(spec)
    context = Context(
        spec.model,
        spec.model_dir,
        spec.manifest,
        spec.batch_size,
        spec.gpu_id,
        MMS_VERSION if spec.contract == MMS else SERVER_VERSION,
        spec.limit_max_image_pixels,
        metrics,
        dict(spec.config),
    )
    metrics.request_ids_of(context)
    if spec.sequence_headers:
        (
            context.header_key_sequence_id,
            context.header_key_sequence_start,
            context.header_key_sequence_end,
        ) = spec.sequence_headers
    return context


class Loaded(NamedTuple):
    """An initialised handler; `flaw` is what its start complained of and went on, or ""."""

    entry: Entry
    flaw: str = ""


def load(spec: LoadSpec, context: Context) -> Loaded:
    """Import the handler, initialise it, and return its entry point.

    Raises:
        BaseException: Whatever the user's code raised, unchanged: its
            traceback is the answer to "why does it not load".
    """
    enter_model_dir(spec)
    module_text, _, function = spec.handler.partition(":")
    module = import_handler(module_text)
    flaw = ""
    if spec.contract == MMS:
        from stoker.worker.contracts import mms

        entry, flaw = mms.find_entry(module, function, context, spec)
    else:
        entry = find_entry(module, function, context)
    if spec.mode == ASYNC:
        if not is_async(entry):
            raise TypeError(f"asyncCommunication needs an `async def` handler: {spec.handler}")
        return Loaded(wrap_each(spec.envelope, entry) if spec.envelope else entry, flaw)
    if is_async(entry):
        from stoker.worker.coroutines import waited_for

        entry = waited_for(entry)
    if spec.envelope:
        entry = wrap(spec.envelope, entry)
    return Loaded(entry, flaw)


def is_async(entry: Entry) -> bool:
    """Whether a call of it has to be awaited or iterated over."""
    for called in (entry, type(entry).__call__):
        if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
            return True
    return False


def _finished(outcome: Any) -> Any:
    """What a coroutine that initialises a handler returns; anything else as it is."""
    if inspect.iscoroutine(outcome):
        from stoker.worker.coroutines import run

        return run(outcome)
    return outcome


def load_failure(spec: LoadSpec, error: BaseException) -> LoadFailed:
    """Tell the log everything and the supervisor what it may repeat to clients."""
    traceback.print_exception(error)
    # Messages may have several lines; whoever reads this has room for one.
    last_line = " ".join(traceback.format_exception_only(error)[-1].split())[:MAX_LAST_LINE]
    is_runtime_error = isinstance(error, (MemoryError, RuntimeError))
    if is_runtime_error and faults.is_out_of_memory(error):
        return LoadFailed("load_out_of_memory", "System out of memory", last_line)
    if isinstance(error, LoadRefused):
        said = " ".join(str(error).split())[:MAX_LAST_LINE]
        return LoadFailed("load_failed", said, said)
    return LoadFailed("load_failed", f"Handler {spec.handler} could not be loaded.", last_line)


def enter_model_dir(spec: LoadSpec) -> None:
    """Make the model's folder the place where the handler lives (6.5).

    The folder of a handler given as `path/to/module.py:function` is next on
    sys.path, then the folder where `ts` lives; what the environment offers
    comes last, so that an installed torchserve is not mistaken for ours.
    """
    front = [str(Path(stoker.compat.__file__).parent)]
    if spec.model_dir is not None:
        folder = os.path.dirname(spec.handler.partition(":")[0])
        if folder:
            front.insert(0, os.path.join(spec.model_dir, folder))
        front.insert(0, spec.model_dir)
        os.chdir(spec.model_dir)
    sys.path[:0] = front


def import_handler(module_text: str) -> ModuleType:
    """Import the module part of a handler's name, or the built-in handler of that name.

    Raises:
        ImportError: The original one, unless a built-in of that name exists
            and fails for a reason of its own.
    """
    name = module_text.rsplit("/", 1)[-1].removesuffix(".py")
    try:
        return import_users_module(name)
    except ImportError as original:
        if "." in name:
            raise
        built_in = f"{BUILT_IN}.{name}"
        try:
            return importlib.import_module(built_in)
        except ModuleNotFoundError as missing:
            if missing.name == built_in:
                raise original from None
            raise


def import_users_module(name: str) -> ModuleType:
    """Import `name`, even if a module of that name is in this process already.

    A file `queue.py` in the model's folder is what the archive's author
    means, although Python has had another `queue` for long.  Such a module
    gets a name of its own, so that nobody else meets it.
    """
    loaded = sys.modules.get(name)
    path = Path(sys.path[0], f"{name}.py")
    if loaded is None or not path.is_file() or _is_from(loaded, path):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(f"{name}__handler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _is_from(module: ModuleType, path: Path) -> bool:
    return module.__file__ is not None and Path(module.__file__).resolve() == path.resolve()


def find_entry(module: ModuleType, function: str, context: Context) -> Entry:
    """The initialised entry point: a function, or the `handle` of the one class.

    Raises:
        ValueError: Neither one function nor one class to use.
    """
    named = getattr(module, function or DEFAULT_FUNCTION, None)
    if function and inspect.isclass(named):
        return _start_class(named, context)
    if named is not None:
        _initialise_function(named, context)
        return named  # type: ignore[no-any-return]
    classes = classes_defined_in(module)
    if len(classes) != 1:
        raise ValueError(
            "Expected only one class in custom service code or a function entry point "
            f"{[item.__name__ for item in classes]}"
        )
    return _start_class(classes[0], context)


def classes_defined_in(module: ModuleType) -> list[type]:
    """Classes whose home is `module`; for our built-ins, what their shim offers."""
    offered = getattr(module, "__all__", ()) if module.__name__.startswith(BUILT_IN) else ()
    return [
        item
        for name, item in vars(module).items()
        if inspect.isclass(item) and (item.__module__ == module.__name__ or name in offered)
    ]


def _initialise_function(function: Entry, context: Context) -> None:
    """Call it once without data, which is how a function handler loads its model."""
    outcome = _finished(function(None, context))
    if inspect.isasyncgen(outcome):
        _finished(_first_step(outcome))
    elif inspect.isgenerator(outcome):
        # A streaming handler's body has not run yet: let it get to its first
        # yield or its return.
        next(outcome, None)
        outcome.close()


async def _first_step(steps: AsyncGenerator[Any, Any]) -> None:
    await anext(steps, None)
    await steps.aclose()


def _start_class(kind: type, context: Context) -> Entry:
    service = kind()
    # Read now: a MicroBatching that __init__ put there counts, what
    # initialize puts there later does not.
    entry = getattr(service, "handle", None)
    if entry is None:
        raise ValueError(f"Expect handle method in class {kind!r}")
    initialize: Any = getattr(service, "initialize", None)
    if initialize is not None:
        _finished(initialize(context))
    return entry  # type: ignore[no-any-return]


def wrap(envelope: str, entry: Entry) -> Entry:
    """Put the first class of an envelope module around the entry point."""
    return _envelope_class(envelope)(entry).handle  # type: ignore[no-any-return]


def wrap_each(envelope: str, entry: Entry) -> Entry:
    """As `wrap`, for requests that are in progress together: an envelope is for one of them."""
    kind = _envelope_class(envelope)

    def handle(data: Any, context: Context) -> Any:
        return kind(entry).handle(data, context)

    return handle


def _envelope_class(envelope: str) -> Any:
    module = importlib.import_module(f"{ENVELOPES}.{envelope}")
    classes = classes_defined_in(module)
    if not classes:
        raise ValueError(f"no envelope class in {module.__name__}")
    return classes[0]
