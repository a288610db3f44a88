"""`timed`: how long a handler's step took, when its model-config asks for it.

Source: contracts/torchserve.md 6.3 (`handler.profile`) and 7.4.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

Step = TypeVar("Step", bound=Callable[..., Any])


def timed(step: Step) -> Step:
    """Emit `ts_handler_<step>` in ms if `handler.profile` is true in the model-config."""
    name = f"ts_handler_{step.__name__}"

    @functools.wraps(step)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        context = getattr(self, "context", None)
        if context is None or not _is_profiled(context):
            return step(self, *args, **kwargs)
        started_at = time.perf_counter()
        result = step(self, *args, **kwargs)
        context.metrics.add_time(name, (time.perf_counter() - started_at) * 1000)
        return result

    return cast(Step, wrapper)


def _is_profiled(context: Any) -> bool:
    config = getattr(context, "model_yaml_config", None)
    handler = config.get("handler") if isinstance(config, dict) else None
    return isinstance(handler, dict) and bool(handler.get("profile"))
