"""Adds up, for each sequence, and says who does; the body says what to do."""

from __future__ import annotations

import json
import os
import time
from typing import Any

SUMS: dict[str, list[int]] = {}


def handle(data: Any, context: Any) -> Any:
    if data is None:
        return None
    answers = []
    for i, row in enumerate(data):
        asked = json.loads(bytes(row["body"]))
        name = context.get_sequence_id(i)
        if context.get_request_header(i, context.header_key_sequence_start):
            SUMS.pop(name, None)
        numbers = SUMS.setdefault(name, [])
        numbers.append(asked.get("add", 0))
        if asked.get("sleep"):
            time.sleep(asked["sleep"])
        if asked.get("echoes", True):
            context.set_response_header(i, context.header_key_sequence_id, name)
        if asked.get("ends"):
            context.set_response_header(i, context.header_key_sequence_end, name)
            del SUMS[name]
        answers.append(
            {
                "sum": sum(numbers),
                "order": numbers,
                "pid": os.getpid(),
                "batch": len(data),
                "start": context.get_request_header(i, context.header_key_sequence_start),
            }
        )
    return answers
