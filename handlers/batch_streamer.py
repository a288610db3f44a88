"""Text of a whole batch as a language model generates it: one list of pieces per step.

For `generate(..., streamer=...)` of transformers, which calls `put` with token
ids and `end` from one thread, while the handler iterates in another.  Only those
two methods and a tokenizer's `decode` are relied on, so nothing of transformers is
imported here.

Source: contracts/torchserve.md 7.7 (`ts.handler_utils.hf_batch_streamer`).
"""

from __future__ import annotations

import queue
from typing import Any, Final

_END: Final = None


class TextIteratorStreamerBatch:
    """Yields lists of texts, one for each row of the batch; "" where nothing is complete yet.

    Words are held back until the space behind them has come, since more tokens
    may change how the last one is written.

    Args:
        skip_prompt: The first ids are the prompts and are not repeated.
        timeout: Seconds that iterating waits for the next piece; None for ever.
            Then `queue.Empty` is raised.
        batch_size: Rows.
        decode_kwargs: For the tokenizer's `decode`.
    """

    def __init__(
        self,
        tokenizer: Any,
        skip_prompt: bool = False,
        timeout: float | None = None,
        batch_size: int = 1,
        **decode_kwargs: Any,
    ) -> None:
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.timeout = timeout
        self.batch_size = batch_size
        self.decode_kwargs = decode_kwargs
        self._tokens: list[list[int]] = [[] for _ in range(batch_size)]
        self._printed = [0] * batch_size
        self._is_prompt_next = True
        self._pieces: queue.Queue[list[str] | None] = queue.Queue()

    # -- the generating thread -------------------------------------------------

    def put(self, value: Any) -> None:
        """New token ids: a row for each text, or one id for each.

        Raises:
            ValueError: Not as many rows as the batch has.
        """
        rows = value.tolist() if hasattr(value, "tolist") else list(value)
        if len(rows) != self.batch_size:
            raise ValueError(f"{len(rows)} rows for a batch of {self.batch_size}")
        if self._is_prompt_next:
            self._is_prompt_next = False
            if self.skip_prompt:
                return
        for tokens, new in zip(self._tokens, rows, strict=True):
            tokens += new if isinstance(new, list) else [new]
        self.on_finalized_text([self._new_text(i) for i in range(self.batch_size)])

    def end(self) -> None:
        """The last pieces, whole."""
        rest = []
        for i, tokens in enumerate(self._tokens):
            rest.append(self._decode(tokens)[self._printed[i] :] if tokens else "")
            tokens.clear()
            self._printed[i] = 0
        self._is_prompt_next = True
        self.on_finalized_text(rest, stream_end=True)

    def on_finalized_text(self, text: list[str], stream_end: bool = False) -> None:
        """Hand one step over; subclasses may look at it."""
        self._pieces.put(text)
        if stream_end:
            self._pieces.put(_END)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, **self.decode_kwargs))

    def _new_text(self, i: int) -> str:
        tokens = self._tokens[i]
        text = self._decode(tokens)
        start = self._printed[i]
        if text.endswith("\n"):
            # Nothing before it can change any more.
            tokens.clear()
            self._printed[i] = 0
            return text[start:]
        # Of what is written without spaces every character is a word.
        end = len(text) if text and _is_ideograph(text[-1]) else text.rfind(" ") + 1
        self._printed[i] = max(start, end)
        return text[start:end]

    # -- the handler -------------------------------------------------------------

    def __iter__(self) -> TextIteratorStreamerBatch:
        return self

    def __next__(self) -> list[str]:
        pieces = self._pieces.get(timeout=self.timeout)
        if pieces is _END:
            raise StopIteration
        return pieces


def _is_ideograph(letter: str) -> bool:
    """Chinese, Japanese and Korean characters, as Unicode's blocks have them."""
    code = ord(letter)
    return 0x3040 <= code <= 0x9FFF or 0xAC00 <= code <= 0xFAFF or 0x20000 <= code <= 0x2FA1F
