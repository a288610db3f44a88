"""Predictions whose answers are fetched later: `x-synchronous: false`, and the tokens it gives.

    request   x-synchronous: false               -> at once 200, x-next-token: ID
    fetch     x-starting-token: ID[index]        -> what there is since then
              x-max-items: n                     -> at most n pieces of it

A fetch that leaves something out, or comes before the end, is told the next
token: the id, and the index of the last piece it got.

Source: contracts/djl-serving.md 3.6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from stoker.errors import InvalidParameter, StokerError
from stoker.frontend.header_fields import CUSTOM_ATTRIBUTES, fields_in_headers
from stoker.frontend.results import TOKEN_CHARACTERS, Found, KeptResult, Results
from stoker.logs import get_logger
from stoker.wire.payloads import Answer, AnswerKind
from stoker.wire.pending import Pending

SYNCHRONOUS: Final = "x-synchronous"
STARTING_TOKEN: Final = "x-starting-token"
MAX_ITEMS: Final = "x-max-items"
NEXT_TOKEN: Final = "x-next-token"
_FIELDS: Final = (SYNCHRONOUS, STARTING_TOKEN, MAX_ITEMS)
#: What the short way looks for; it knows nothing of what they mean.
DETOURS: Final = frozenset(
    name.encode() for name in (SYNCHRONOUS, STARTING_TOKEN, CUSTOM_ATTRIBUTES)
)
_NOT_YET: Final = "The model result is not yet available"

log = get_logger("http")


def asked(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """What a request says about its answer; {} for the usual one."""
    said = fields_in_headers(headers, _FIELDS)
    if STARTING_TOKEN in said or said.get(SYNCHRONOUS, "").lower() == "false":
        return said
    return {}


class AsynchronousAnswers:
    """Keeps answers and gives them out."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> KeptResult:
        """Before the job is sent.  Raises TooManyRequests."""
        return self._results.begin()

    def keep(self, pending: Pending, kept: KeptResult) -> Answer:
        """Keep what comes of a job, from now on, and answer its client."""
        task = asyncio.get_running_loop().create_task(_keep(pending, kept))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return _final(200, "", _tokens(kept.token, kept.token))

    def drop(self, kept: KeptResult) -> None:
        """Its job was not sent."""
        kept.close()
        self._results.forget(kept.token)

    def fetch(self, said: dict[str, str]) -> Answer:
        """Raises InvalidParameter."""
        given = said[STARTING_TOKEN]
        token, index = given[:TOKEN_CHARACTERS], given[TOKEN_CHARACTERS:]
        most = said.get(MAX_ITEMS, "")
        found = self._results.find(token)
        if found is None or not _is_number(index):
            raise InvalidParameter(
                f"Invalid {STARTING_TOKEN}: {given[:80]}", parameter=STARTING_TOKEN
            )
        if not _is_number(most):
            raise InvalidParameter("Failed to lookup cache element", parameter=MAX_ITEMS)
        begin = int(index) + 1 if index else 0
        return _page(token, found, begin, int(most) if most else None)


def _is_number(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and len(text) < 10)


def _page(token: str, found: Found, begin: int, most: int | None) -> Answer:
    pieces = found.pieces[begin:]
    if most is not None:
        pieces = pieces[:most]
    after = begin + len(pieces)
    is_last = found.has_ended and after >= len(found.pieces)
    if not pieces and not is_last:
        since = f"{token}{begin - 1}" if begin else token
        return _final(202, _NOT_YET, _tokens(since, token))
    tokens = [] if is_last else _tokens(f"{token}{after - 1}", token)
    body = b"".join(piece.body for piece in pieces)
    if not found.pieces:
        return _final(200, "", tokens)
    # Status and headers count in the first piece only; a failure has its own.
    head = pieces[-1] if pieces and pieces[-1].status >= 400 else found.pieces[0]
    return Answer(
        b"",
        AnswerKind.FINAL,
        head.status,
        head.reason,
        head.content_type,
        [*head.headers, *tokens],
        body,
    )


def _tokens(token: str, name: str) -> list[tuple[str, str]]:
    return [
        (NEXT_TOKEN, token),
        ("X-Amzn-SageMaker-Custom-Attributes", f"{NEXT_TOKEN}={name}"),
    ]


def _final(status: int, reason: str, headers: list[tuple[str, str]]) -> Answer:
    return Answer(b"", AnswerKind.FINAL, status, reason, None, headers, b"")


async def _keep(pending: Pending, kept: KeptResult) -> None:
    try:
        while not kept.has_ended:
            answer = await pending.next()
            kept.put(answer)
            if answer.kind is not AnswerKind.CHUNK:
                return
    except StokerError as error:
        kept.fail(error.message)
    except OSError as error:
        log.warning("a result could not be kept", reason=error.strerror)
    finally:
        pending.cancel()
        kept.close()
