"""What a request says, whoever asks and whenever: to know one again that kills workers.

The supervisor reads no payloads; this is the exception, for requests that are
suspected and for those of their size, and it makes a hash of them, nothing else.
The request's id and its headers do not count: they differ from one request to
the next that says the same.  What the server itself put among the headers does.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from stoker.errors import ProtocolError
from stoker.supervisor.quarantine import Content
from stoker.wire.arena_layout import Descriptor
from stoker.wire.arena_reader import read_body
from stoker.wire.frames import FRONTEND_ID_BYTES
from stoker.wire.payloads import Parameter, RequestPayload, read_headers, unpack_request

#: Hashing takes about a millisecond per megabyte, in which nobody else is served.
MAX_CONTENT_BYTES: Final = 16 << 20
#: Headers that say which of a handler's works is asked for; see the frontend's routes.
ASKED_BY_HEADER: Final = frozenset({"url_path", "explain"})
_DIGEST_BYTES: Final = 16


class ContentReader:
    """Reads payloads, and the bodies that lie in a frontend's arena.

    Args:
        arenas: The folder of the server's arenas.
    """

    def __init__(self, arenas: Path) -> None:
        self._arenas = arenas

    def size(self, job_id: bytes, payload: bytes) -> int | None:
        request = _unpacked(payload)
        return None if request is None else _size(request)

    def read(self, job_id: bytes, payload: bytes) -> Content | None:
        request = _unpacked(payload)
        if request is None or (size := _size(request)) > MAX_CONTENT_BYTES:
            return None
        # The last one counts, as for the handler.
        asked = {name: value for name, value in request.headers if name in ASKED_BY_HEADER}
        parts = [text.encode() for item in sorted(asked.items()) for text in item]
        for parameter in request.parameters:
            body = self._body(job_id, parameter)
            if body is None:
                return None
            parts += (parameter.name.encode(), parameter.content_type.encode(), body)
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return Content(size, digest.digest())

    def headers(self, payload: bytes) -> list[str]:
        try:
            return read_headers(payload)
        except ProtocolError:
            return []

    def _body(self, job_id: bytes, parameter: Parameter) -> bytes | None:
        body = parameter.body
        if isinstance(body, Descriptor):
            return read_body(self._arenas, job_id[:FRONTEND_ID_BYTES], body)
        return body


def _unpacked(payload: bytes) -> RequestPayload | None:
    try:
        return unpack_request(payload)
    except ProtocolError:
        return None


def _size(request: RequestPayload) -> int:
    return sum(
        body.length if isinstance(body, Descriptor) else len(body)
        for _, _, body in request.parameters
    )
