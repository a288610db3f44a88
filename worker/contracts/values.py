"""Values as handlers see them and as clients get them; nothing here knows a batch.

Source: contracts/torchserve.md 2.4 (in) and 2.6 (out).
"""

from __future__ import annotations

import io
import json
import sys
from typing import Any, Final

from stoker.worker.contracts.json_text import indented
from stoker.worker.request import Request

#: Only exactly this is decoded; parameters are stripped at the door (2.3).
JSON: Final = "application/json"


def read(request: Request, decode_request: bool) -> dict[str, Any]:
    """One request as the dict a handler gets; the last of equal names wins."""
    data: dict[str, Any] = {}
    for name, kind, body in request.parameters():
        if not decode_request or not (kind == JSON or kind.startswith("text")):
            # What came through the arena is a copy of our own already.
            data[name] = body if type(body) is bytearray else bytearray(body)
        else:
            data[name] = read_text(kind, body)
    return data


def read_text(kind: str, body: bytes | bytearray) -> Any:
    """The JSON value or str that the content type promises, or bytearray if the body breaks it."""
    try:
        return json.loads(body) if kind == JSON else body.decode()
    except (ValueError, RecursionError):
        _warn(f"a body is not the {kind} its content type promises; passed on as bytearray")
        return bytearray(body)


def write(result: Any) -> bytes:
    """The body for one element of what the handler returned.

    Raises:
        Exception: The element itself if it is one; else whatever made
            encoding it impossible.
    """
    if isinstance(result, str):
        return result.encode()
    if isinstance(result, (bytes, bytearray, memoryview)):
        return bytes(result)
    if isinstance(result, Exception):
        raise result
    # A handler without torch cannot return a tensor, so torch is never imported here.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(result, torch.Tensor):
        buffer = io.BytesIO()
        torch.save(result, buffer)
        return buffer.getvalue()
    try:
        return indented(result).encode()
    except Exception as error:
        raise Unserialisable(f"{type(error).__name__}: {error}") from None


class Unserialisable(Exception):
    """An element that JSON has no word for."""


def _warn(text: str) -> None:
    sys.stderr.write(f"stoker: {text}\n")
