"""AWS Signature Version 4 for one kind of request: getting an object from S3.

For `s3_sse_kms`: objects encrypted with a KMS key are only given to signed
requests.  Credentials come from the peer's environment variables.

Source: contracts/torchserve.md 3.1 (`s3_sse_kms`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_EMPTY_BODY: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """Who asks, and in which region.  Never shown: the secrets stay out of repr."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str
    session_token: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> S3Credentials | None:
        """The peer's three variables (and a session token); None if one of the three is missing."""
        access_key = environment.get("AWS_ACCESS_KEY_ID", "")
        secret_key = environment.get("AWS_SECRET_ACCESS_KEY", "")
        region = environment.get("AWS_DEFAULT_REGION", "")
        if not (access_key and secret_key and region):
            return None
        token = environment.get("AWS_SESSION_TOKEN", "")
        return cls(access_key, secret_key, region, token)


def sign_get(
    url: str, headers: Mapping[str, str], credentials: S3Credentials, now: datetime
) -> dict[str, str]:
    """Return `headers` with what makes a GET of `url` a signed one.

    Every header given is signed.  `now` is in UTC; S3 refuses a clock that is
    fifteen minutes off.
    """
    parts = urlsplit(url)
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    signed["host"] = parts.netloc
    signed["x-amz-content-sha256"] = _EMPTY_BODY
    signed["x-amz-date"] = moment
    if credentials.session_token:
        signed["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(signed))
    request = "\n".join(
        [
            "GET",
            quote(unquote(parts.path) or "/", safe="/-_.~"),
            _canonical_query(parts.query),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            _EMPTY_BODY,
        ]
    )
    scope = f"{moment[:8]}/{credentials.region}/s3/aws4_request"
    text = "\n".join(
        ["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()]
    )
    key = f"AWS4{credentials.secret_key}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    signed["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return signed


def _canonical_query(query: str) -> str:
    pairs = parse_qsl(query.replace("+", "%20"), keep_blank_values=True)
    encoded = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in pairs)
    return "&".join(f"{key}={value}" for key, value in encoded)
