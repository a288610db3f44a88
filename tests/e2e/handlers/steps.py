"""Continuous batching with sequences: counts on, piece by piece, from where a sequence was.

The body says how many pieces; every piece is the number that the sequence has
come to, and how many were there in that step.
"""

from __future__ import annotations

import json
import time
from typing import Any


class Steps:
    def initialize(self, context: Any) -> None:
        self.context = context
        context.cache = {}
        self.left: dict[str, int] = {}

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        ids = list(context.request_ids.values())
        self.left = {known: left for known, left in self.left.items() if known in ids}
        pieces = []
        for i, (request_id, row) in enumerate(zip(ids, data, strict=True)):
            sequence = context.get_sequence_id(i)
            if row:
                asked = json.loads(bytes(row["body"]))
                self.left[request_id] = asked["count"]
                if asked.get("ends"):
                    context.set_response_header(i, context.header_key_sequence_end, sequence)
            self.left[request_id] -= 1
            context.cache[sequence] = context.cache.get(sequence, 0) + 1
            pieces.append(f"{context.cache[sequence]}/{len(data)} ")
        left = [self.left[request_id] for request_id in ids]
        context.stopping_criteria = [lambda piece, n=n: n == 0 for n in left]
        time.sleep(0.02)
        return pieces
