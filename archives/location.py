"""What the `url` of a register request means: a file, a folder, a download, or nothing.

The text is judged before anything touches a disk or a socket: `..` is looked
for behind percent-encoding too, and remote texts are brought to one normal
form before `allowed_urls` is asked, so that no spelling of a forbidden address
passes for an allowed one (CVE-2024-35198).  A local name is only ever looked
up inside the model store, with links resolved.

Source: contracts/torchserve.md 3.2, 1.6, 11.
"""

from __future__ import annotations

import functools
import re
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from stoker.errors import (
    ArchiveNotFound,
    ArchiveUrlEmpty,
    ArchiveUrlNotAllowed,
    ArchiveUrlRelative,
    ModelStoreMissing,
    SettingsError,
)
from stoker.java_regex import compile_java

#: The name of the model store itself, for a store that is one model.
THE_STORE: Final = "."
MAX_URL_LENGTH: Final = 8192

_REMOTE: Final = re.compile(r"(https?|file?)://", re.IGNORECASE)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_UNRESERVED: Final = frozenset(string.ascii_letters + string.digits + "-._~")
#: What may stand unencoded in a path or a query (RFC 3986), beside the unreserved.
_KEPT: Final = frozenset("!$&'()*+,;=:@/?")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_HOST: Final = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9_-])?")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """An archive file, links resolved."""

    path: Path


@dataclass(frozen=True, slots=True)
class LocalDirectory:
    """An unpacked model inside the model store; used where it is."""

    path: Path


@dataclass(frozen=True, slots=True)
class Remote:
    """An allowed http(s) address in its normal form, which is what will be asked for."""

    url: str


Location = LocalFile | LocalDirectory | Remote


def locate(url: str, model_store: Path | None, allowed_urls: tuple[str, ...]) -> Location:
    """Decide what `url` stands for.

    Raises:
        ArchiveUrlEmpty, ArchiveUrlRelative, ArchiveUrlNotAllowed,
        ArchiveNotFound, ModelStoreMissing: with the contract's exact texts.
    """
    if not url:
        raise ArchiveUrlEmpty("empty url", url=url)
    if is_relative(url):
        raise ArchiveUrlRelative(f"Relative path is not allowed in url: {url}", url=url)
    if _REMOTE.match(url):
        return _file_of_store(url, model_store) or _locate_remote(url, allowed_urls)
    if model_store is None:
        raise ModelStoreMissing("Model store has not been configured.", url=url)
    found = _locate_in_store(url, model_store)
    if found is None:
        raise _not_found(url)
    return found


def locate_store(model_store: Path | None) -> Location:
    """The model store itself, as one model; for who configures the server alone.

    Raises:
        ModelStoreMissing.
    """
    store = None if model_store is None else _real(model_store)
    if store is None:
        raise ModelStoreMissing("Model store has not been configured.", url=THE_STORE)
    return LocalDirectory(store)


def is_relative(text: str) -> bool:
    """Does `text` contain `..`, however often it was percent-encoded?"""
    for _ in range(8):
        if ".." in text:
            return True
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True  # nobody encodes a name eight times over and means well


def _not_found(url: str) -> ArchiveNotFound:
    return ArchiveNotFound(f"Model not found at: {url}", url=url)


# -- remote -------------------------------------------------------------------


def check_allowed(url: str, allowed_urls: tuple[str, ...], *, given: str | None = None) -> str:
    """Return the normal form of `url` if a pattern admits it; `given` is the text to report.

    Raises:
        ArchiveUrlNotAllowed: nothing admits it, or it cannot be normalised.
    """
    reported = url if given is None else given
    normal = normalise(url)
    if normal is None or not _is_admitted(normal, allowed_urls):
        raise ArchiveUrlNotAllowed(
            f"Given URL {reported} does not match any allowed URL(s)",
            url=reported,
            is_malformed=normal is None,
        )
    return normal


def _is_admitted(normal: str, allowed_urls: tuple[str, ...]) -> bool:
    """A pattern may name the default port or leave it out: it is the same address."""
    spellings = [normal]
    parts = urlsplit(normal)
    if parts.scheme in _DEFAULT_PORTS and parts.port is None:
        begin = f"{parts.scheme}://{parts.netloc}"
        spellings.append(f"{begin}:{_DEFAULT_PORTS[parts.scheme]}{normal.removeprefix(begin)}")
    return any(p.fullmatch(text) for p in _compiled(allowed_urls) for text in spellings)


@functools.lru_cache(maxsize=8)
def _compiled(allowed_urls: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    try:
        return tuple(compile_java(pattern, ignores_case=True) for pattern in allowed_urls)
    except re.error as error:
        raise SettingsError(
            f"allowed_urls holds a bad regular expression: {error}", setting="allowed_urls"
        ) from None


def normalise(url: str) -> str | None:
    """One spelling per http, https or file address; None for those we refuse to read.

    Lower-case scheme and host, no default port, no fragment, no `.` segment,
    only necessary percent-encoding.  Refused: user names, backslashes, white
    space, control characters, hosts outside plain ASCII.
    """
    if len(url) > MAX_URL_LENGTH or "\\" in url or any(c <= " " or c == "\x7f" for c in url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    authority = parts.netloc.lower()
    if "@" in authority or scheme not in ("http", "https", "file"):
        return None
    host = authority.removesuffix(f":{port}") if port is not None else authority.removesuffix(":")
    host = host.removesuffix(".")
    path = _normal_path(parts.path)
    if is_relative(path):
        return None
    if scheme == "file":
        # Only this host has files for us, and a file has no query.
        if host not in ("", "localhost") or port is not None or parts.query:
            return None
        return f"file://{path}"
    if not _HOST.fullmatch(host) or port == 0:
        return None
    shown_port = "" if port in (None, _DEFAULT_PORTS[scheme]) else f":{port}"
    query = f"?{_normal_escapes(parts.query)}" if parts.query else ""
    return f"{scheme}://{host}{shown_port}{path}{query}"


def _normal_path(path: str) -> str:
    kept = _normal_escapes(path)
    while "/./" in kept:
        kept = kept.replace("/./", "/")
    return kept.removesuffix("/.") or "/"


def _normal_escapes(text: str) -> str:
    """Escape what must be escaped, unescape what need not be, hex digits in capitals."""
    done: list[str] = []
    at = 0
    while at < len(text):
        escape = _ESCAPE.match(text, at)
        if escape:
            char = chr(int(escape[0][1:], 16))
            done.append(char if char in _UNRESERVED else escape[0].upper())
            at += 3
            continue
        char = text[at]
        if char in _UNRESERVED or char in _KEPT:
            done.append(char)
        else:
            done.append("".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace")))
        at += 1
    return "".join(done)


def _locate_remote(url: str, allowed_urls: tuple[str, ...]) -> Location:
    normal = check_allowed(url, allowed_urls)
    if not normal.startswith("file:"):
        return Remote(normal)
    path = _real(Path(unquote(normal.removeprefix("file://"))))
    if path is None or not (path.is_file() or path.is_dir()):
        raise _not_found(url)
    # A link inside an allowed folder must not lead out of what is allowed.
    check_allowed(path.as_uri(), allowed_urls, given=url)
    return LocalFile(path) if path.is_file() else LocalDirectory(path)


def _file_of_store(url: str, model_store: Path | None) -> Location | None:
    """What a file address means that leads into the model store, where all may be named."""
    normal = normalise(url)
    store = None if model_store is None else _real(model_store)
    if store is None or normal is None or not normal.startswith("file:"):
        return None
    path = _inside(Path(unquote(normal.removeprefix("file://"))), store)
    if path is None:
        return None
    return LocalFile(path) if path.is_file() else LocalDirectory(path)


def admits_everything(allowed_urls: tuple[str, ...]) -> bool:
    """Is there no address that the list keeps out?  The peer's own default is such a list."""
    return all(
        _is_admitted(url, allowed_urls)
        for url in ("http://host.invalid/any.mar", "https://192.0.2.1/any.mar")
    )


# -- the model store ----------------------------------------------------------


def _locate_in_store(url: str, model_store: Path) -> Location | None:
    """Look a local name up as the peer does, but never outside the store.

    First the last part of the text as a file of the store, then the text as a
    folder (absolute, or below the store), then its last part as a folder.
    """
    store = _real(model_store)
    name = re.split(r"[/\\]", url.rstrip("/"))[-1]
    if store is None or name in ("", ".") or len(url) > MAX_URL_LENGTH:
        return None
    by_name = _inside(store / name, store)
    if by_name is not None and by_name.is_file():
        return LocalFile(by_name)
    for candidate in (_inside(store / url, store), by_name):
        if candidate is not None and candidate.is_dir():
            return LocalDirectory(candidate)
    return None


def _inside(path: Path, store: Path) -> Path | None:
    real = _real(path)
    return real if real is not None and store in real.parents else None


def _real(path: Path) -> Path | None:
    """The path with links resolved, or None if there is nothing (or nothing we may see)."""
    try:
        return path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None
