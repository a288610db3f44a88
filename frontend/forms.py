"""Forms: one parameter per part or field, in the order they came.

The parser of multipart forms is falcon's.
Source: contracts/torchserve.md 2.3.
"""

from __future__ import annotations

import io

import falcon
from falcon.media import MultipartFormHandler
from falcon.media.multipart import BodyPart, MultipartParseOptions

from stoker.errors import InvalidBody
from stoker.frontend.limits import Limits
from stoker.wire.payloads import Parameter


def read_multipart(content_type: str, body: bytes, limits: Limits) -> list[Parameter]:
    """Raises InvalidBody: no boundary, cut off, too many parts, a part without a name."""
    options = MultipartParseOptions()
    options.max_body_part_count = limits.form_parts
    options.max_body_part_buffer_size = max(1, len(body))
    options.max_body_part_headers_size = limits.part_header_bytes
    handler = MultipartFormHandler(options)
    try:
        form = handler.deserialize(io.BytesIO(body), content_type, len(body))
        return [_read_part(part) for part in form]
    except falcon.HTTPError as error:
        reason = error.description or error.title or "unexpected form structure"
        raise InvalidBody(f"The multipart form cannot be read: {reason}.") from None
    except ValueError:  # a name or type that is not text
        raise InvalidBody("The multipart form cannot be read: bad part header.") from None


def _read_part(part: BodyPart) -> Parameter:
    if part.name is None:
        raise InvalidBody("The multipart form cannot be read: a part has no name.")
    if part.filename is None:
        return Parameter(part.name, "", part.get_data())
    # `part.content_type` says text/plain for "none", which would become str
    # in the handler; a file that names no type is bytes.
    named: bytes | None = part._headers.get(b"content-type")
    content_type = "application/octet-stream" if named is None else named.decode("latin-1")
    return Parameter(part.name, content_type, part.get_data())


def read_urlencoded(body: bytes, limits: Limits) -> list[Parameter]:
    """Values keep the very bytes that were sent, UTF-8 or not.

    Raises:
        InvalidBody: Too many fields, or a `%` that escapes nothing.
    """
    if body.count(b"&") >= limits.form_parts:
        raise InvalidBody(f"The form has more than {limits.form_parts} fields.")
    pairs = [field.partition(b"=") for field in body.split(b"&") if field]
    return [
        Parameter(_unquote(name).decode("utf-8", "replace"), "", _unquote(value))
        for name, _, value in pairs
    ]


def _unquote(quoted: bytes) -> bytes:
    """In a few passes over the whole.

    The standard library makes an object of every escape: 6 MB of them kept the
    process busy for seconds and took a gigabyte.
    """
    plain = quoted.replace(b"+", b" ")
    if b"%" not in plain:
        return plain
    # This codec knows \xHH as we know %HH, and takes all other bytes as they are.
    respelled = plain.replace(b"\\", b"\\\\").replace(b"%", b"\\x")
    try:
        return respelled.decode("unicode_escape").encode("latin-1")
    except UnicodeDecodeError:
        raise InvalidBody("The form cannot be read: a % that escapes nothing.") from None
