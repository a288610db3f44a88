"""Pages of other sites may not change anything here, though the browser of an operator carries it.

A listener on loopback asks nobody for a key, and any page that a browser on this
host has open can send a simple POST there: it may not read the answer, but the
model is registered.  Browsers say where a request comes from, and pages cannot
take that away: `Sec-Fetch-Site`, or, in older ones, `Origin`.  Programs send neither.

What only reads is let in: a page cannot read the answers unless `cors_allowed_origin`
names it, and then it may also change things.

Source: Fetch Metadata Request Headers (W3C), RFC 6454.
"""

from __future__ import annotations

from typing import Final

from stoker.errors import StokerError
from stoker.frontend.guard import Door, Headers
from stoker.frontend.problems import CrossSiteRefused

_READS: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_SITE: Final = b"sec-fetch-site"
_ORIGIN: Final = b"origin"
_HOST: Final = b"host"
#: `none`: nobody's page, but the person in front of it.
_OWN: Final = frozenset((b"same-origin", b"none"))


class SameSite:
    """Stands before a listener's guard, if it has one.

    Args:
        allowed_origin: The setting `cors_allowed_origin`; "" for no other origin.
        exempt: Paths that begin so are everybody's: predictions, where they share the listener.
    """

    __slots__ = ("_allowed", "_exempt", "_guard")

    def __init__(
        self, allowed_origin: str, guard: Door | None = None, exempt: tuple[bytes, ...] = ()
    ) -> None:
        self._allowed = allowed_origin.strip().lower().encode()
        self._guard = guard
        self._exempt = exempt

    def refusal(self, method: bytes, url: bytes, headers: Headers) -> StokerError | None:
        if (
            method not in _READS
            and not url.startswith(self._exempt)
            and not self._is_welcome(headers)
        ):
            return CrossSiteRefused(
                "A page of another site may not change anything here; if it is meant to, name "
                "its origin in cors_allowed_origin."
            )
        return None if self._guard is None else self._guard.refusal(method, url, headers)

    def _is_welcome(self, headers: Headers) -> bool:
        found: dict[bytes, bytes] = {}
        for name, value in headers:
            lower = name.lower()
            if lower in (_SITE, _ORIGIN, _HOST):
                if lower in found and found[lower] != value:
                    return False  # no browser contradicts itself
                found[lower] = value
        site, origin = found.get(_SITE), found.get(_ORIGIN)
        if site is None and origin is None:
            return True  # no browser
        if origin and self._allowed in (b"*", origin.lower()):
            return True
        if site is not None:
            return site in _OWN
        assert origin is not None
        return origin.lower().partition(b"://")[2] == found.get(_HOST, b"").lower() != b""
