"""Saying no to one request, with a status and a sentence the client may read."""

from __future__ import annotations


class PredictionException(Exception):
    """Raise it in a handler to answer with `error_code` and `message`.

    Raised, it answers every request of the batch.  Put into the returned
    list instead of a result, it answers that request alone and its
    neighbours get their own results (stoker's extension).

    Source: contracts/torchserve.md 1.6 and 7.7.
    """

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"
