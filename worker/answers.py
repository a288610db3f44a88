"""Answers as the flat rows that `wire/payloads.py` draws.

Built as plain lists, not as `payloads.Answer` records: a row costs a third
of that, and a worker makes one for every request there is.
"""

from __future__ import annotations

from typing import Any, Final

from stoker.errors import StokerError
from stoker.wire import packing
from stoker.wire.frames import FRONTEND_ID_BYTES, Group
from stoker.wire.payloads import AnswerKind

AnswerRow = list[Any]

FINAL: Final = AnswerKind.FINAL.value
CHUNK: Final = AnswerKind.CHUNK.value
ERROR: Final = AnswerKind.ERROR.value

#: A frame of answers is cut here; two results at the limit still fit under
#: the bound of a frame's payload.
CUT_BYTES: Final = 64 << 20


def error_row(job_id: bytes, error: StokerError) -> AnswerRow:
    return [job_id, ERROR, 0, error.code, error.message, [], packing.pack(error.details)]


def group_rows(rows: list[AnswerRow]) -> list[Group]:
    """One frame per frontend; most batches come from one frontend."""
    if len(rows) == 1:
        row = rows[0]
        return [Group(row[0][:FRONTEND_ID_BYTES], packing.pack(row))]
    by_frontend: dict[bytes, list[Any]] = {}
    for row in rows:
        fields = by_frontend.setdefault(row[0][:FRONTEND_ID_BYTES], [])
        fields += row
    return [Group(frontend_id, packing.pack(fields)) for frontend_id, fields in by_frontend.items()]


def cut_rows(rows: list[AnswerRow]) -> list[list[AnswerRow]]:
    """Rows in as many lists as keep each frame small enough; usually one."""
    parts: list[list[AnswerRow]] = [[]]
    size = 0
    for row in rows:
        size += len(row[6])
        if size > CUT_BYTES and parts[-1]:
            parts.append([])
            size = len(row[6])
        parts[-1].append(row)
    return parts
