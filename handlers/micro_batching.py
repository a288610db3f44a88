"""MicroBatching: overlap a handler's steps on parts of one batch.

While one part is on the device, the next is being preprocessed and the last
postprocessed.  A handler opts in in its constructor:

    def __init__(self):
        super().__init__()
        self.handle = MicroBatching(self, micro_batch_size=4)

Source: contracts/torchserve.md 6.3 and 7.7.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

STEPS: Final = ("preprocess", "inference", "postprocess")


class MicroBatching:
    """Callable in place of `handle(data, context)`.

    `parallelism` says how many threads each step may use; one if unset.
    """

    def __init__(
        self,
        parent_handler: Any,
        micro_batch_size: int = 1,
        parallelism: Mapping[str, int] | None = None,
    ) -> None:
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._parallelism: dict[str, int] = {}
        self._part = threading.local()
        self.parallelism = dict(parallelism or {})

    @property
    def parallelism(self) -> dict[str, int]:
        return self._parallelism

    @parallelism.setter
    def parallelism(self, parallelism: Mapping[str, int]) -> None:
        for step, threads in parallelism.items():
            if step not in STEPS or threads < 1:
                raise ValueError(f"parallelism: {step}={threads} must be a step and at least 1")
        self._parallelism = dict(parallelism)
        for pool in self._pools.values():
            pool.shutdown(wait=True)
        self._pools = {}

    def get_micro_batch_idx(self) -> int:
        """Which part of the batch the calling thread works on."""
        return getattr(self._part, "index", 0)

    def __call__(self, data: list[Any], context: Any) -> list[Any]:
        started_at = time.perf_counter()
        self.handler.context = context
        size = max(1, self.micro_batch_size)
        waiting: list[Future[Any]] = []
        for index, start in enumerate(range(0, len(data), size)):
            part: Any = data[start : start + size]
            for step in STEPS:
                part = self._submit(step, index, part)
            waiting.append(part)
        try:
            results = [row for future in waiting for row in future.result()]
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
        if context.metrics is not None:
            elapsed_ms = (time.perf_counter() - started_at) * 1000
            context.metrics.add_time("HandlerTime", round(elapsed_ms, 2), None, "ms")
        return results

    def _submit(self, step: str, index: int, part: Any) -> Future[Any]:
        # Every pool takes its parts in order, so one that waits for the step
        # before waits for something that is already under way.
        method: Callable[[Any], Any] = getattr(self.handler, step)

        def run() -> Any:
            self._part.index = index
            return method(part.result() if isinstance(part, Future) else part)

        return self._pool(step).submit(run)

    def _pool(self, step: str) -> ThreadPoolExecutor:
        pool = self._pools.get(step)
        if pool is None:
            threads = self._parallelism.get(step, 1)
            pool = self._pools[step] = ThreadPoolExecutor(threads, thread_name_prefix=step)
        return pool
