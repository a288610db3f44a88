"""`Output`: what a handler of DJL Serving answers with.

Source: contracts/djl-serving.md 13.4, 14.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

from stoker.worker.djl.pair_list import PairList
from stoker.worker.djl.tensors import write_ndlist, write_npz

OK: Final = 200
#: What a handler answers that could not do its work.
FAILED: Final = 424
Formatter = Callable[[Any], "bytes | str"]


def to_json(value: Any) -> str:
    """Two spaces, letters as they are.

    Raises:
        TypeError, ValueError: JSON has no word for it; also for NaN.
    """
    return json.dumps(
        value,
        ensure_ascii=False,
        allow_nan=False,
        indent=2,
        separators=(",", ":"),
        default=_plain,
    )


def _plain(value: Any) -> Any:
    """What numpy, torch and the clock give, as JSON knows it."""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    for convert in ("tolist", "item"):
        if callable(method := getattr(value, convert, None)):
            return method()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def to_bytes(value: Any) -> bytes:
    """Raises TypeError, ValueError."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return to_json(value).encode()


def wrapped(piece: Any) -> bytes:
    """A piece of a stream, as it is sent unless the handler says otherwise."""
    if isinstance(piece, (bytes, bytearray)):
        piece = piece.decode()
    return (json.dumps({"outputs": piece}, ensure_ascii=False, default=_plain) + "\n").encode()


class Output:
    """A code with its message, properties (headers), and contents (the body).

    Attributes:
        stream: The pieces of a streamed answer, and what writes one.
        last_word: To be called when the answer has been sent.
    """

    def __init__(self, code: int = OK, message: str = "OK") -> None:
        self.code = code
        self.message = message
        self.properties: dict[str, str] = {}
        self.content = PairList()
        self.stream: tuple[Iterable[Any], Formatter] | None = None
        self.last_word: Callable[[], Any] | None = None

    def __str__(self) -> str:
        return f"Output {self.code}, {self.message}, {self.content.get_keys()}"

    # -- what it is -------------------------------------------------------------

    def set_code(self, code: int) -> None:
        self.code = code

    def get_code(self) -> int:
        return self.code

    def set_message(self, message: str) -> None:
        self.message = message

    def get_message(self) -> str:
        return self.message

    def error(
        self, error: str, code: int = FAILED, message: str = "invoke handler failure"
    ) -> Output:
        """Make this an error, whatever it was before."""
        self.code = code
        self.message = message
        self.content = PairList()
        self.stream = None
        self.add_property("content-type", "application/json")
        return self.add({"code": code, "message": message, "error": error})

    def add_property(self, key: str, value: Any) -> Output:
        self.properties[key] = str(value)
        return self

    def get_properties(self) -> dict[str, str]:
        return self.properties

    def get_property(self, key: str) -> str | None:
        lowered = key.lower()
        return next((v for k, v in self.properties.items() if k.lower() == lowered), None)

    # -- contents ---------------------------------------------------------------

    def add(self, value: Any, key: str | None = None, batch_index: int | None = None) -> Output:
        """Text, bytes, or anything JSON has a word for.

        Args:
            batch_index: Which request of a batch it answers.
        """
        return self._add(to_bytes(value), key, batch_index)

    def add_as_json(
        self, value: Any, key: str | None = None, batch_index: int | None = None
    ) -> Output:
        return self._add(to_json(value).encode(), key, batch_index)

    def add_as_numpy(
        self, arrays: Sequence[Any], key: str | None = None, batch_index: int | None = None
    ) -> Output:
        return self._add(write_ndlist(arrays), key, batch_index)

    def add_as_npz(
        self, arrays: Sequence[Any], key: str | None = None, batch_index: int | None = None
    ) -> Output:
        return self._add(write_npz(arrays), key, batch_index)

    def _add(self, body: bytes, key: str | None, batch_index: int | None) -> Output:
        if batch_index is not None:
            key = f"batch_{batch_index}.{key}" if key else f"batch_{batch_index}"
        self.content.add(key, body)
        return self

    def add_stream_content(
        self, stream_content: Iterable[Any], output_formatter: Formatter | None = wrapped
    ) -> Output:
        """Answer piece by piece, as the iterator gives them.

        Args:
            output_formatter: Makes bytes or text of a piece; None: they are some.
        """
        self.stream = (stream_content, output_formatter or to_bytes)
        return self

    def finalize(self, fn: Callable[..., Any], *args: Any) -> Output:
        """Have `fn` called when the answer has been sent."""
        self.last_word = lambda: fn(*args)
        return self

    @staticmethod
    def binary_encode(outputs: Mapping[str, Any]) -> bytes:
        """Names and texts, each with its length before it."""
        parts = [struct.pack(">H", len(outputs))]
        for name, value in outputs.items():
            for text in (str(name).encode(), to_bytes(value)):
                parts.append(struct.pack(">H", len(text)) + text)
        return b"".join(parts)
