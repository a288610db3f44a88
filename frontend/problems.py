"""Errors as HTTP answers, through the dialect of the listener.

A dialect is one table from error code to (status, type, text); this file
looks rows up, fills texts and renders.  What is no StokerError becomes
`internal`: its traceback goes to the log with the request id, never to the
client.

Source: contracts/torchserve.md 1.4-1.6.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stoker.errors import Internal, QueueFull, StokerError, TooManyRequests

JSON_TYPE: Final = "application/json"
#: Fields of a failed load, or of a worker's death, that a client may see, beside the message.
_FAILURE_FIELDS: Final = ("last_line", "log", "exit", "likely")
#: And of a death, beside what the dialect says: in full, and how many workers had it.
_DEATH_FIELDS: Final = ("attempts", "deaths")
#: And of a run of a workflow: where it ended, and why.
_NODE_FIELDS: Final = ("node", "request_id", "cause")


class RouteNotFound(StokerError):
    """No such path."""

    code = "route_not_found"


class MethodNotAllowed(StokerError):
    """The path exists, this method on it does not, or is switched off."""

    code = "method_not_allowed"


class MalformedHttp(StokerError):
    """Bytes that are not an HTTP request, or a head beyond its limits."""

    code = "malformed_http"


class TokenRefused(StokerError):
    """The key for this listener is missing, wrong or expired."""

    code = "token_refused"


class KeyRenewalRefused(StokerError):
    """The API key is missing or wrong, or no such key is renewed."""

    code = "key_renewal_refused"


class HttpsRequired(StokerError):
    """Plain HTTP on an https listener."""

    code = "https_required"


class CrossSiteRefused(StokerError):
    """A browser brings it from a page of another site."""

    code = "cross_site_refused"


class HeadTooSlow(StokerError):
    """A head that had begun did not end in time."""

    code = "head_too_slow"


class BodyTooSlow(StokerError):
    """The body did not arrive in time."""

    code = "body_too_slow"


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """How a dialect tells one error.

    Attributes:
        kind: The type that clients match on; "" where the answer is no error
            document but a plain status.
        text: `str.format` template over details and arguments, or a function
            of them; None repeats the error's own message.
        retry_after_s: Sent as Retry-After.
    """

    status: int
    kind: str
    text: str | Callable[[Mapping[str, Any]], str] | None = None
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """An error, ready for a dialect's shape; `attempts` workers had the request."""

    status: int
    kind: str
    message: str
    retry_after_s: int | None = None
    failure: dict[str, Any] = field(default_factory=dict)
    attempts: int = 1


class _Fields(dict[str, Any]):
    """Fields for a text; a missing one stays empty rather than fail an answer."""

    def __missing__(self, key: str) -> str:
        return ""


def solve(
    table: Mapping[str, ProblemRow],
    error: StokerError,
    verb: str = "",
    arguments: Mapping[str, Any] | None = None,
) -> Problem:
    """The table's answer to an error.

    A row for `verb/code` wins over one for `code`.  The error's details fill
    the text; where they say nothing, what the client asked for does.  Some
    texts name a version only if the client did: that is `asked_version`.
    """
    row = table.get(f"{verb}/{error.code}") or table.get(error.code) or table[Internal.code]
    details = error.details
    if row.text is None:
        message = error.message
    else:
        asked = arguments or {}
        fields = _Fields({name: value for name, value in asked.items() if value is not None})
        fields.update({name: value for name, value in details.items() if value is not None})
        fields["asked_version"] = asked.get("version")
        fields["message"] = error.message
        fields["message"] = error.message
        message = row.text(fields) if callable(row.text) else row.text.format_map(fields)
    status = row.status
    if error.code == "handler_refused":
        status = _refused_status(details.get("status"), row.status)
    retry_after_s = row.retry_after_s
    if retry_after_s is not None:
        # What measures the queue knows better than a table.
        retry_after_s = details.get("retry_after_s", retry_after_s)
    failure = {name: details[name] for name in _FAILURE_FIELDS if details.get(name)}
    if "likely" in failure:
        failure["message"] = error.message
        failure |= {name: details[name] for name in _DEATH_FIELDS if details.get(name)}
    if "node" in details:
        failure |= {name: details[name] for name in _NODE_FIELDS if details.get(name)}
        failure["message"] = error.message
    attempts = details.get("attempts") or 1
    return Problem(status, row.kind, message, retry_after_s, failure, attempts)


#: Not about the request, which might have been answered a moment before or after.
_OVERLOAD: Final = frozenset((QueueFull.code, TooManyRequests.code))


def is_overload(error: StokerError) -> bool:
    """Refused for want of room alone: such a client's connection stays open."""
    return error.code in _OVERLOAD


def _refused_status(status: Any, otherwise: int) -> int:
    if not isinstance(status, int) or not 400 <= status <= 599:
        return otherwise
    # 413 is for bodies alone; the peer rewrites it (1.6).
    return 507 if status == 413 else status


def render_json(document: Any) -> bytes:
    """Two spaces, non-ASCII as it is, one newline at the end (1.4)."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "replace")
