"""Who may call what: one listener's demand for a key.

Everything needs the key of its role, except what is named open: the API
description, by setting the health paths, and `/token`, which asks for a key of
its own.  The comparison comes before a body is read and needs no route, so it
denies by default: only a path in its plain spelling can be open.

On a listener that two roles share, either key lets a request in; which routes
it may then use is checked where the route is known (`demand`).

Source: contracts/torchserve.md 1.2, 1.6, 3.10.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from stoker import key_file
from stoker.errors import StokerError
from stoker.frontend.exchange import Exchange
from stoker.frontend.keyring import Keyring
from stoker.frontend.listeners import Role
from stoker.frontend.problems import HttpsRequired, TokenRefused
from stoker.frontend.routes import Description, KeyRenewal, Route

_KEY_OF: Final = {Role.INFERENCE: key_file.INFERENCE, Role.MANAGEMENT: key_file.MANAGEMENT}

_AUTHORIZATION: Final = b"authorization"
_NAME_LENGTH: Final = len(_AUTHORIZATION)

Headers = Iterable[tuple[bytes, bytes]]


class Door(Protocol):
    """Looks at every head that comes to a listener."""

    def refusal(self, method: bytes, url: bytes, headers: Headers) -> StokerError | None:
        """Why a request may not come in, as far as its head tells; None if it may."""
        ...


class Guard:
    """Asks the callers of one listener for a key.

    Args:
        roles: What the listener serves; `/metrics` has no key of its own.
        open_paths: Without a `/` at the end, except for the root.
    """

    __slots__ = ("_keyring", "_names", "open_paths")

    def __init__(
        self, keyring: Keyring, roles: Iterable[Role], open_paths: frozenset[bytes]
    ) -> None:
        self._keyring = keyring
        self._names = tuple(_KEY_OF[role] for role in roles if role in _KEY_OF)
        self.open_paths = open_paths

    @property
    def is_shared(self) -> bool:
        """Routes here need different keys."""
        return len(self._names) > 1

    def refusal(self, method: bytes, url: bytes, headers: Headers) -> StokerError | None:
        """As `Door`; what is asked for, not how, decides which key it needs."""
        credentials = _credentials(headers)
        if credentials:
            for name in self._names:
                if self._keyring.opens(name, credentials):
                    return None
        path = url.partition(b"?")[0]
        if path in self.open_paths or (path.rstrip(b"/") or b"/") in self.open_paths:
            return None
        return TokenRefused()

    def demand(self, exchange: Exchange, roles: Iterable[Role]) -> None:
        """Raises TokenRefused unless the request shows the key of one of these roles."""
        credentials = _credentials(exchange.headers)
        names = [_KEY_OF[role] for role in roles if role in _KEY_OF] or self._names
        if not any(self._keyring.opens(name, credentials) for name in names):
            raise TokenRefused


class HttpsOnly:
    """Refuses everybody: for plain HTTP on an https listener."""

    def refusal(self, method: bytes, url: bytes, headers: Headers) -> StokerError | None:
        return HttpsRequired()


def holds_api_key(keyring: Keyring, exchange: Exchange) -> bool:
    """Does the request show the key that renews the others?"""
    return keyring.opens(key_file.API, _credentials(exchange.headers))


def open_paths(routes: Iterable[Route], *, health_needs_token: bool) -> frozenset[bytes]:
    """The paths of a listener that answer without its key."""
    return frozenset(
        route.path.encode()
        for route in routes
        if (isinstance(route.serves, Description) and not route.serves.of_model)
        or isinstance(route.serves, KeyRenewal)
        or (route.is_probe and not health_needs_token)
    )


def _credentials(headers: Headers) -> bytes:
    """The Authorization header; b"" without one, or with several that could contradict."""
    found = b""
    for name, value in headers:
        if len(name) == _NAME_LENGTH and name.lower() == _AUTHORIZATION:
            if found:
                return b""
            found = value
    return found
