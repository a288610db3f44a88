"""Values as handlers see them and as clients get them; nothing here knows a batch.

Source: contracts/torchserve.md 2.4 (in) and 2.6 (out).
"""

from __future__ import annotations

import io
import json
import sys
from typing import Any, Final

from stoker.worker.request import Request

_indented: Final = json.JSONEncoder(indent=2).encode
#: Types whose JSON is one word; indenting them needs no pretty printer.
_WORDS: Final = frozenset({int, float, bool, type(None)})
_word: Final = json.JSONEncoder().encode


def read(request: Request, decode_request: bool) -> dict[str, Any]:
    """One request as the dict a handler gets; the last of equal names wins."""
    return {
        name: read_parameter(kind, body) if kind and decode_request else bytearray(body)
        for name, kind, body in request.parameters()
    }


def read_parameter(kind: str, body: bytes) -> Any:
    """`bytearray`, unless the content type promises JSON or text and keeps it."""
    if kind == "application/json":
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            _warn("a body is not the JSON its content type promises; passed on as bytearray")
    elif kind.startswith("text"):
        try:
            return body.decode()
        except UnicodeDecodeError:
            _warn("a body is not the UTF-8 text its content type promises; passed on as bytearray")
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
    if type(result) in _WORDS:
        return _word(result).encode()
    # A handler without torch cannot return a tensor, so torch is never imported here.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(result, torch.Tensor):
        buffer = io.BytesIO()
        torch.save(result, buffer)
        return buffer.getvalue()
    try:
        return _indented(result).encode()
    except Exception as error:
        raise Unserialisable(f"{type(error).__name__}: {error}") from None


class Unserialisable(Exception):
    """An element that JSON has no word for."""


def _warn(text: str) -> None:
    sys.stderr.write(f"stoker: {text}\n")
