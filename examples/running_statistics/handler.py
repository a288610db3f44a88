"""Mean and spread of every number a sensor has sent, for many sensors at once.

Each sensor is a sequence.  What it has sent so far is kept in this process,
because the server brings all of a sensor's requests here, one after the other;
that of several sensors may come in one batch.
"""

from __future__ import annotations

import json
import math
from typing import Any

#: More sensors than the server lets in at a time: nobody tells us which are closed.
MAX_KNOWN = 256


def added(known: tuple[int, float, float], value: float) -> tuple[int, float, float]:
    """Count, mean and sum of squares with one more value: Welford's, which loses no digits."""
    count, mean, squares = known
    step = value - mean
    mean += step / (count + 1)
    return count + 1, mean, squares + step * (value - mean)


class RunningStatistics:
    """`{"add": [numbers]}` in, the statistics of all of the sequence's numbers out."""

    def initialize(self, context: Any) -> None:
        # Kept between calls, as everything that a handler puts on its context.
        context.cache = {}

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        return [self._answer(i, row, context) for i, row in enumerate(data)]

    def _answer(self, i: int, row: dict[str, Any], context: Any) -> dict[str, Any]:
        sequence = context.get_sequence_id(i)
        context.set_response_header(i, context.header_key_sequence_id, sequence)
        if context.get_request_header(i, context.header_key_sequence_start):
            context.cache.pop(sequence, None)
        known = context.cache.pop(sequence, (0, 0.0, 0.0))
        request = row.get("body") or {}
        if isinstance(request, (bytes, bytearray)):
            request = json.loads(request)
        for number in request.get("add", []):
            known = added(known, float(number))
        context.cache[sequence] = known
        if len(context.cache) > MAX_KNOWN:
            del context.cache[next(iter(context.cache))]  # silent for longest
        count, mean, squares = known
        spread = math.sqrt(squares / count) if count else 0.0
        if request.get("done"):
            # Frees the sequence's place; so would the client's own header, or idleness.
            context.set_response_header(i, context.header_key_sequence_end, sequence)
            del context.cache[sequence]
        return {"count": count, "mean": round(mean, 6), "spread": round(spread, 6)}
