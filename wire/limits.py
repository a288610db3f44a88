"""How large what travels between processes may be, in one table."""

from __future__ import annotations

from typing import Final

#: Limits of one frame.  A body is at most MAX_PAYLOAD_BYTES; what lies above
#: travels through the shared-memory arena or not at all.
MAX_FRAME_BYTES: Final = 1 << 30
MAX_PAYLOAD_BYTES: Final = 512 << 20
#: Payloads in one WORK, if there are several; the rest of the frame is for ids and deadlines.
MAX_WORK_BYTES: Final = MAX_FRAME_BYTES - (16 << 20)
#: Jobs in one WORK, if it has several batches; each takes up to three elements.
MAX_WORK_JOBS: Final = 1 << 16
MAX_TEXT_BYTES: Final = 1 << 20
#: Elements of one array, and of all arrays and maps of a large frame.
MAX_ELEMENTS: Final = 1 << 18
MAX_MAP_ENTRIES: Final = 1 << 16
#: What is read of a payload by whoever wants only its headers.
HEAD_BYTES: Final = 256 << 10
#: Above this a frame's headers are walked before anything is built of it.
UNWALKED_BYTES: Final = 256 << 10
