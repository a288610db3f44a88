"""`/token?type=management|inference`: a new key for an old one.

The answer says nothing: the new key is in the key file, for whoever may read
that.

Source: contracts/torchserve.md 3.10.
"""

from __future__ import annotations

import asyncio
from typing import Final

from falcon.asgi import Request, Response

from stoker import key_file
from stoker.errors import Internal, SettingsError, StokerError
from stoker.frontend.answers import answer_problem, exchange_of
from stoker.frontend.dialect import Dialect
from stoker.frontend.guard import holds_api_key
from stoker.frontend.keyring import Keyring
from stoker.frontend.parameters import parse_query
from stoker.frontend.problems import JSON_TYPE, KeyRenewalRefused
from stoker.logs import get_logger

_RENEWABLE: Final = (key_file.MANAGEMENT, key_file.INFERENCE)

log = get_logger("access")


class KeyRenewals:
    """Falcon's responder for the token API."""

    def __init__(self, keyring: Keyring, dialect: Dialect) -> None:
        self._keyring = keyring
        self._dialect = dialect

    async def answer(self, request: Request, response: Response) -> None:
        try:
            await self._renew(request)
        except StokerError as error:
            answer_problem(request, response, self._dialect, error, "renew_key")
            return
        response.content_type = JSON_TYPE
        response.data = b"\n"

    async def _renew(self, request: Request) -> None:
        if not holds_api_key(self._keyring, exchange_of(request)):
            raise KeyRenewalRefused
        name = parse_query(request.query_string).get("type", "")
        if name not in _RENEWABLE:
            raise KeyRenewalRefused
        try:
            # It waits for a lock and for the disk.
            await asyncio.to_thread(self._keyring.renew, name)
        except (OSError, SettingsError) as error:
            log.error("a key was not renewed", key=name, reason=str(error))
            raise Internal("The key file could not be written.") from None
