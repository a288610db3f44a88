"""Downloading an archive over http(s), resumably and under limits.

The peer downloads into the model store and answers 500 when the name is taken
there; we download into our cache, so a second registration of one address is
no error and the operator's folder stays his.

Source: contracts/torchserve.md 3.1, 3.2, 1.6; issue point 3.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urljoin, urlsplit

from stoker.archives.location import check_allowed
from stoker.archives.locks import LockTimeout, lock
from stoker.archives.partial import Partial
from stoker.archives.s3_signature import S3Credentials, sign_get
from stoker.errors import ArchiveUrlNotAllowed, DownloadFailed
from stoker.logs import get_logger

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

log = get_logger("archives")

Progress = Callable[[int, int | None], None]

MAX_REDIRECTS: Final = 5
MAX_ATTEMPTS: Final = 3
PROGRESS_EVERY_S: Final = 1.0
_CHUNK_BYTES: Final = 1 << 20
_FIRST_PAUSE_S: Final = 0.2
_RETRYABLE: Final = frozenset({429, 500, 502, 503, 504})
_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class FetchLimits:
    max_bytes: int = 16 << 30
    total_timeout_s: float = 3600.0
    read_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What to get.

    Attributes:
        url: The address in its normal form (`location.Remote`).
        given: The text the client wrote, for messages.
        allowed_urls: Asked again at every redirect.
        credentials: Sign the request for S3 with these.
    """

    url: str
    given: str
    allowed_urls: tuple[str, ...]
    credentials: S3Credentials | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """A whole archive on disk, until the `with` of `fetched` ends."""

    path: Path
    sha256: str
    size_bytes: int


@contextmanager
def fetched(
    request: FetchRequest,
    folder: Path,
    limits: FetchLimits,
    *,
    progress: Progress = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Download]:
    """Download to `folder` and hand the file out for the length of a `with`.

    What an earlier, failed try has left is continued where the server can
    prove that it still has the same bytes.  Afterwards the file is removed; a
    failure leaves it for the next try, if that can make anything of it.

    Raises:
        DownloadFailed: whatever went wrong; `details.reason` says what.
    """
    partial = Partial(folder, request.url)
    until = time.monotonic() + limits.total_timeout_s
    with ExitStack() as stack:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(
                lock(partial.lock_path, timeout_s=limits.total_timeout_s, should_stop=should_stop)
            )
            with partial:
                try:
                    _Fetch(request, limits, partial, until, progress, should_stop).run()
                except BaseException:
                    if not (partial.size and partial.validator):
                        # Nothing that a next try could go on with.
                        partial.forget()
                        partial.lock_path.unlink(missing_ok=True)
                    raise
                download = Download(partial.path, partial.sha256, partial.size)
        except LockTimeout:
            raise failed(request.given, "another download of it does not end") from None
        except OSError as error:
            raise failed(request.given, f"cannot write: {error.strerror}") from None
        yield download
        partial.forget()
        partial.lock_path.unlink(missing_ok=True)


def failed(given: str, reason: str, **facts: int) -> DownloadFailed:
    """The one error of downloading (contract 1.6), with the reason for the log."""
    return DownloadFailed(
        f"Failed to download archive from: {given}", url=given, reason=reason, **facts
    )


class _TryAgain(Exception):
    """The connection or the server failed in a way that may pass; with which status, or 0."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class _Fetch:
    """One download: attempts, redirects, limits."""

    def __init__(
        self,
        request: FetchRequest,
        limits: FetchLimits,
        partial: Partial,
        until: float,
        progress: Progress,
        should_stop: Callable[[], bool],
    ) -> None:
        self._request = request
        self._limits = limits
        self._partial = partial
        self._until = until
        self._progress = progress
        self._should_stop = should_stop
        self._total: int | None = None
        self._told_at = float("-inf")
        self._is_answered = False  # a name or port that never answers is not tried again

    def run(self) -> None:
        # Only servers that download pay for it.
        from urllib3.exceptions import HTTPError

        from stoker.archives.destinations import ForbiddenDestination, open_pools

        attempts = 0
        with open_pools(MAX_REDIRECTS + 1) as pool:
            while True:
                size_before = self._partial.size
                try:
                    self._attempt(pool)
                    break
                except ForbiddenDestination as error:
                    self._fail(str(error))
                except OSError as error:
                    self._fail(f"cannot write: {error.strerror or type(error).__name__}")
                except (_TryAgain, HTTPError) as error:
                    # An attempt that brought something does not count.
                    attempts = 1 if self._partial.size > size_before else attempts + 1
                    if attempts >= MAX_ATTEMPTS or not self._is_answered:
                        self._fail(f"{type(error).__name__}: {error}"[:300], **_facts(error))
                    log.info(
                        "download interrupted",
                        host=urlsplit(self._request.url).netloc,
                        bytes=self._partial.size,
                        error=str(error)[:200],
                    )
                    self._pause(_FIRST_PAUSE_S * 2**attempts / 2)
        self._progress(self._partial.size, self._partial.size)

    def _attempt(self, pool: PoolManager) -> None:
        response = self._open(pool)
        self._is_answered = True
        try:
            if response.status in _RETRYABLE:
                raise _TryAgain(f"status {response.status}", response.status)
            if response.status == 416:
                # Our part is not a beginning of what is there now.
                self._partial.restart("")
                raise _TryAgain("the part on disk no longer fits")
            if response.status not in (200, 206):
                self._fail(f"status {response.status}", status=response.status)
            self._begin(response)
            self._read_body(response)
        finally:
            response.close()  # never back to the pool: the rest of a body is not wanted
            response.release_conn()

    def _open(self, pool: PoolManager) -> BaseHTTPResponse:
        """Send the GET, following redirects to allowed places only."""
        import urllib3

        url = self._request.url
        for _ in range(MAX_REDIRECTS + 1):
            self._check_time()
            response = pool.request(
                "GET",
                url,
                headers=self._headers(url),
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=self._wait_s(), read=self._wait_s(), total=None),
            )
            if response.status not in (301, 302, 303, 307, 308):
                return response
            target = response.headers.get("Location", "")
            response.close()
            try:
                url = check_allowed(urljoin(url, target), self._request.allowed_urls)
            except (ArchiveUrlNotAllowed, ValueError):
                self._fail("it redirects to a place that is not allowed")
            if not url.startswith(("http://", "https://")):
                self._fail("it redirects to a place that is not allowed")
        raise failed(self._request.given, "it redirects too often")

    def _headers(self, url: str) -> Mapping[str, str]:
        headers = {"accept-encoding": "identity", "user-agent": "stoker"}
        if self._partial.size and self._partial.validator:
            headers["range"] = f"bytes={self._partial.size}-"
            headers["if-range"] = self._partial.validator
        # A redirect to another host gets no signature: it is not the one we trust with it.
        credentials = self._request.credentials
        if credentials and urlsplit(url).netloc == urlsplit(self._request.url).netloc:
            headers |= sign_get(url, {}, credentials, datetime.now(UTC))
        return headers

    def _begin(self, response: BaseHTTPResponse) -> None:
        """Decide from the answer's head whether to go on or to start anew."""
        length = _number(response.headers.get("Content-Length"))
        if response.status == 206:
            bounds = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if bounds is None or int(bounds[1]) != self._partial.size:
                self._partial.restart("")
                raise _TryAgain("the server answered with another range")
            self._total = _number(bounds[2])
            if self._total is None and length is not None:
                self._total = self._partial.size + length
        else:
            self._partial.restart(_validator(response.headers))
            self._total = length
        if self._total is not None and self._total > self._limits.max_bytes:
            self._fail("it is larger than max_archive_bytes")

    def _read_body(self, response: BaseHTTPResponse) -> None:
        # read1 returns what one packet brought: a server that trickles cannot
        # keep us past the deadline inside one long read.
        while chunk := response.read1(_CHUNK_BYTES):
            if self._partial.size + len(chunk) > self._limits.max_bytes:
                self._partial.restart("")
                self._fail("it is larger than max_archive_bytes")
            self._partial.append(chunk)
            self._check_time()
            now = time.monotonic()
            if now - self._told_at >= PROGRESS_EVERY_S:
                self._told_at = now
                self._progress(self._partial.size, self._total)
        if self._total is not None and self._partial.size < self._total:
            raise _TryAgain("the connection was cut")
        if self._total is not None and self._partial.size > self._total:
            self._partial.restart("")
            self._fail("more came than was announced")

    def _wait_s(self) -> float:
        return max(0.001, min(self._limits.read_timeout_s, self._until - time.monotonic()))

    def _pause(self, length_s: float) -> None:
        end = time.monotonic() + length_s
        while (left := end - time.monotonic()) > 0:
            self._check_time()
            time.sleep(min(left, 0.1))

    def _check_time(self) -> None:
        if self._should_stop():
            self._fail("the download was stopped")
        if time.monotonic() >= self._until:
            self._fail("it took longer than download_timeout_s", is_timeout=True)

    def _fail(self, reason: str, **facts: int) -> NoReturn:
        raise failed(self._request.given, reason, **facts)


def _facts(error: Exception) -> dict[str, int]:
    """What a dialect may want to tell: the server's status, or that it went silent."""
    from urllib3.exceptions import ReadTimeoutError

    if isinstance(error, _TryAgain):
        return {"status": error.status} if error.status else {}
    return {"is_timeout": True} if isinstance(error, ReadTimeoutError) else {}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None


def _validator(headers: Mapping[str, str]) -> str:
    """What If-Range may carry: a strong ETag, else the date, else nothing (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag", "")
    if etag.startswith('"') and len(etag) < 256:
        return etag
    return headers.get("Last-Modified", "")[:64]
