"""The event loop of a worker whose handler is made of coroutines.

Loaded for those alone: most workers have no loop (`worker/__main__.py`).  One
loop serves the process for its whole life, so that what a handler starts while
it loads (an engine, a session) is at home where its requests are handled.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

_loop: asyncio.AbstractEventLoop | None = None


def event_loop() -> asyncio.AbstractEventLoop:
    """This process's, and the current one of its main thread."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)
    return _loop


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it to its end, with whatever else is on the loop."""
    return event_loop().run_until_complete(coroutine)


def waited_for(entry: Callable[..., Any]) -> Callable[..., Any]:
    """A handler of one batch after the other, out of one that is made of coroutines."""
    if any(map(inspect.isasyncgenfunction, (entry, type(entry).__call__))):

        def steps(data: Any, context: Any) -> Iterator[Any]:
            pieces = entry(data, context)
            try:
                while True:
                    yield run(pieces.__anext__())
            except StopAsyncIteration:
                pass
            finally:
                run(pieces.aclose())

        return steps

    def handle(data: Any, context: Any) -> Any:
        return run(entry(data, context))

    return handle
