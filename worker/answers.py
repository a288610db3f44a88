"""Answers as the flat rows that `wire/payloads.py` draws.

Built as plain lists, not as `payloads.Answer` records: a row costs a third
of that, and a worker makes one for every request there is.
"""

from __future__ import annotations

from typing import Any, Final

from stoker.errors import StokerError
from stoker.wire import packing
from stoker.wire.frames import FRONTEND_ID_BYTES, Group
from stoker.wire.lent_bodies import MIN_BODY_BYTES
from stoker.wire.payloads import AnswerKind

AnswerRow = list[Any]

FINAL: Final = AnswerKind.FINAL.value
CHUNK: Final = AnswerKind.CHUNK.value
ERROR: Final = AnswerKind.ERROR.value

#: Fields of a row, and which of them is the body.
ROW_FIELDS: Final = 7
BODY: Final = 6

#: A frame of answers is cut here; two results at the limit still fit under
#: the bound of a frame's payload.
CUT_BYTES: Final = 64 << 20


def error_row(job_id: bytes, error: StokerError) -> AnswerRow:
    return [job_id, ERROR, 0, error.code, error.message, [], packing.pack(error.details)]


class LooseFrame:
    """A frame with large bodies, which are still as the handler gave them.

    Attributes:
        fields: Of its rows, one after the other.
    """

    __slots__ = ("fields",)

    def __init__(self, fields: list[Any]) -> None:
        self.fields = fields

    def __len__(self) -> int:
        return sum(map(len, self.fields[BODY::ROW_FIELDS]))

    def packed(self) -> bytes:
        return packing.pack(self.fields)


def group_rows(rows: list[AnswerRow]) -> list[Group]:
    """One frame per frontend; most batches come from one frontend."""
    if len(rows) == 1:
        row = rows[0]
        return [Group(row[0][:FRONTEND_ID_BYTES], _pack(row))]
    by_frontend: dict[bytes, list[Any]] = {}
    for row in rows:
        fields = by_frontend.setdefault(row[0][:FRONTEND_ID_BYTES], [])
        fields += row
    return [Group(frontend_id, _pack(fields)) for frontend_id, fields in by_frontend.items()]


def _pack(fields: list[Any]) -> bytes | LooseFrame:
    for at in range(BODY, len(fields), ROW_FIELDS):
        if len(fields[at]) >= MIN_BODY_BYTES:
            return LooseFrame(fields)
    return packing.pack(fields)


def cut_rows(rows: list[AnswerRow]) -> list[list[AnswerRow]]:
    """Rows in as many lists as keep each frame small enough; usually one."""
    parts: list[list[AnswerRow]] = [[]]
    size = 0
    for row in rows:
        size += len(row[BODY])
        if size > CUT_BYTES and parts[-1]:
            parts.append([])
            size = len(row[BODY])
        parts[-1].append(row)
    return parts
