"""`timeit`: a decorator that says how long a function took."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["timeit"]

P = ParamSpec("P")
R = TypeVar("R")


def timeit(func: Callable[P, R]) -> Callable[P, R]:
    """Print the function's name and its milliseconds after every call."""

    @functools.wraps(func)
    def timed(*args: P.args, **kwargs: P.kwargs) -> R:
        began = time.monotonic()
        result = func(*args, **kwargs)
        took_ms = (time.monotonic() - began) * 1000
        sys.stdout.write(f"{func.__name__} took {took_ms:.2f} ms\n")
        return result

    return timed
