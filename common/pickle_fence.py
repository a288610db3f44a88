"""Nobody unpickles in the processes that hear strangers.

None of our code does, but libraries can: zmq's sockets, logging's, uvicorn's
and multiprocessing import `pickle` when they are imported.  With the fence up
they get a module of that name in which every function refuses; the real one
is not loaded, nor can it be imported any more.

For the launcher, the supervisor and the frontend.  Workers run handlers, and
models are pickled.  It keeps mistakes out, ours and those of libraries; code
that runs in the process already needs no pickle.
"""

from __future__ import annotations

import sys
import types
from typing import Any, Final, NoReturn

#: The parser of pickles in C, which `pickle` would use.
_PARSER: Final = "_pickle"


class PickleError(Exception):
    """The base that libraries name in `except`."""


class Fenced(PickleError):
    """Something wanted to pickle or unpickle where that is forbidden."""


def _refuse(*_: object, **__: object) -> NoReturn:
    raise Fenced("pickle is not available in this process of stoker")


class _Fenced:
    """In the place of `Pickler` and `Unpickler`; a class, because some derive from them."""

    def __init__(self, *_: object, **__: object) -> None:
        _refuse()


def raise_fence() -> bool:
    """Before zmq, uvicorn or gunicorn are imported; harmless when repeated.

    Returns False if the real module is loaded already, by whatever runs at the
    start of this interpreter: then it stays.
    """
    known = sys.modules.get("pickle")
    if known is not None:
        return hasattr(known, "is_fence")
    fence: Any = types.ModuleType("pickle", __doc__)
    fence.is_fence = True
    fence.DEFAULT_PROTOCOL = fence.HIGHEST_PROTOCOL = 5
    for name in ("dump", "dumps", "load", "loads"):
        setattr(fence, name, _refuse)
    for name in ("Pickler", "Unpickler", "PickleBuffer"):
        setattr(fence, name, type(name, (_Fenced,), {}))
    fence.PickleError = fence.PicklingError = fence.UnpicklingError = PickleError
    sys.modules["pickle"] = fence
    sys.modules[_PARSER] = None  # type: ignore[assignment]  # importing it fails
    return True
