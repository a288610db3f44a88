"""Bodies: what they mean to a handler.

A body becomes `Parameter`s (contracts/torchserve.md 2.3): one per part of a
form, else exactly one called `body`.  Bodies are never decompressed.
"""

from __future__ import annotations

from typing import Final

from stoker.frontend import forms
from stoker.frontend.limits import Limits
from stoker.wire.arena_layout import Descriptor
from stoker.wire.payloads import Parameter

BODY_NAME: Final = "body"
_MULTIPART: Final = "multipart/form-data"
_URLENCODED: Final = "application/x-www-form-urlencoded"


def may_be_form(content_type: bytes | None) -> bool:
    """Such a body is taken apart here; any other is passed on as it is."""
    return content_type is not None and b"form" in content_type.lower()


def read_parameters(
    content_type: str | None, body: bytes | Descriptor, limits: Limits
) -> list[Parameter]:
    """What the handler will find.  Raises InvalidBody for a malformed form."""
    if content_type is None:
        return [Parameter(BODY_NAME, "", body)]
    media_type = content_type.partition(";")[0].strip()
    # Most requests are JSON or raw: look closer only at what may be a form.
    if media_type[:1] in "mMaA" and isinstance(body, bytes):
        lowered = media_type.lower()
        if lowered == _MULTIPART:
            return forms.read_multipart(content_type, body, limits)
        if lowered == _URLENCODED:
            return forms.read_urlencoded(body, limits)
    return [Parameter(BODY_NAME, media_type, body)]
