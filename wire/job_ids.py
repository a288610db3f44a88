"""Ids of frontends, and of the jobs of each.

A job's id is that of its frontend and random bytes, drawn anew for each:

    frontend id (8) | suffix (8)
"""

from __future__ import annotations

import os
from typing import Final

from stoker.wire.frames import FRONTEND_ID_BYTES, JOB_ID_BYTES

#: Suffixes are drawn this many at a time.
SUFFIX_BATCH: Final = 512
_SUFFIX_BYTES: Final = JOB_ID_BYTES - FRONTEND_ID_BYTES


def new_frontend_id() -> bytes:
    """For one life of one process."""
    # A routing id must not begin with a zero byte: zmq keeps those.
    return bytes([os.urandom(1)[0] | 1]) + os.urandom(FRONTEND_ID_BYTES - 1)


class JobIds:
    """Those of one frontend's jobs."""

    __slots__ = ("_at", "_frontend_id", "_suffixes")

    def __init__(self, frontend_id: bytes) -> None:
        self._frontend_id = frontend_id
        self._suffixes = b""
        self._at = 0

    def new(self) -> bytes:
        """One that nobody guesses: a worker must not be able to answer for another one."""
        at = self._at
        if at >= len(self._suffixes):
            self._suffixes = os.urandom(SUFFIX_BATCH * _SUFFIX_BYTES)
            at = 0
        self._at = at + _SUFFIX_BYTES
        return self._frontend_id + self._suffixes[at : at + _SUFFIX_BYTES]
