from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stoker.archives.fetch import Download, FetchLimits, FetchRequest, fetched
from stoker.archives.partial import MAX_AGE_S, clean_partials
from stoker.archives.s3_signature import S3Credentials, sign_get
from stoker.errors import DownloadFailed

BODY = os.urandom(3_000_000)
ANYWHERE = (r"http://127\.0\.0\.1:\d+/.*",)


class Origin:
    """A web server that misbehaves on demand."""

    def __init__(self) -> None:
        self.body = BODY
        self.etag = '"one"'
        self.cuts: list[int] = []  # bytes after which an answer is cut off
        self.statuses: list[int] = []
        self.redirects: dict[str, str] = {}
        self.has_length = True
        self.trickle_s = 0.0
        self.seen: list[dict[str, str]] = []
        self.released = threading.Event()
        origin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                origin.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.seen.append({name.lower(): value for name, value in handler.headers.items()})
        handler.close_connection = True
        if handler.path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[handler.path])
            handler.end_headers()
            return
        status = self.statuses.pop(0) if self.statuses else 200
        if status != 200:
            handler.send_response(status)
            handler.end_headers()
            return
        start = 0
        asked = handler.headers.get("Range", "")
        if asked and handler.headers.get("If-Range") == self.etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        handler.send_response(206 if start else 200)
        if start:
            total = len(self.body)
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if self.has_length:
            handler.send_header("Content-Length", str(len(self.body) - start))
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        self._send(handler, self.body[start:])

    def _send(self, handler: BaseHTTPRequestHandler, rest: bytes) -> None:
        try:
            if self.trickle_s:
                for at in range(len(rest)):
                    handler.wfile.write(rest[at : at + 1])
                    if self.released.wait(self.trickle_s):
                        return
            handler.wfile.write(rest[: self.cuts.pop(0)] if self.cuts else rest)
        except OSError:
            pass  # the client left


@pytest.fixture
def origin() -> Iterator[Origin]:
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


@contextmanager
def fetching(
    url: str,
    folder: Path,
    *,
    allowed: tuple[str, ...] = ANYWHERE,
    credentials: S3Credentials | None = None,
    limits: FetchLimits | None = None,
    **hooks: Callable[..., Any],
) -> Iterator[Download]:
    request = FetchRequest(url, url, allowed, credentials)
    with fetched(request, folder, limits or FetchLimits(), **hooks) as download:
        yield download


def fail(url: str, folder: Path, **options: Any) -> str:
    with pytest.raises(DownloadFailed) as caught, fetching(url, folder, **options):
        pass
    assert caught.value.message == f"Failed to download archive from: {url}"
    assert caught.value.details["url"] == url
    return str(caught.value.details["reason"])


def test_a_download_is_whole_hashed_and_gone_afterwards(origin: Origin, folder: Path) -> None:
    """The copy that stays is the unpacked one in the cache."""
    told: list[tuple[int, int | None]] = []

    with fetching(
        f"{origin.url}/x.mar", folder, progress=lambda *facts: told.append(facts)
    ) as download:
        assert download.path.read_bytes() == BODY
        assert download.sha256 == hashlib.sha256(BODY).hexdigest()
        assert download.path.stat().st_mode & 0o777 == 0o600

    assert told[-1] == (len(BODY), len(BODY))
    assert len(told) <= 3
    assert list(folder.iterdir()) == []


def test_a_cut_connection_is_continued_where_it_broke(origin: Origin, folder: Path) -> None:
    """Sixteen gigabytes are not loaded twice for one lost packet."""
    origin.cuts = [1_000_000, 500_000]

    with fetching(f"{origin.url}/x.mar", folder) as download:
        assert download.path.read_bytes() == BODY

    ranges = [headers.get("range") for headers in origin.seen]
    assert ranges == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_later_try_continues_what_a_failed_one_left(origin: Origin, folder: Path) -> None:
    """A restart of the server does not lose what has come."""
    origin.cuts = [1_000_000]
    origin.statuses = [200, 404]
    assert fail(f"{origin.url}/x.mar", folder) == "status 404"

    with fetching(f"{origin.url}/x.mar", folder) as download:
        assert download.sha256 == hashlib.sha256(BODY).hexdigest()

    assert origin.seen[-1]["range"] == "bytes=1000000-"


def test_a_changed_origin_is_loaded_anew(origin: Origin, folder: Path) -> None:
    """Half of the old and half of the new would be nothing at all."""
    origin.cuts = [1_000_000]
    origin.statuses = [200, 404]
    fail(f"{origin.url}/x.mar", folder)
    origin.body, origin.etag = b"new" * 1000, '"two"'

    with fetching(f"{origin.url}/x.mar", folder) as download:
        assert download.path.read_bytes() == b"new" * 1000


def test_without_a_validator_nothing_is_continued(origin: Origin, folder: Path) -> None:
    """A weak promise of sameness is none."""
    origin.cuts, origin.etag = [1000], 'W/"weak"'

    with fetching(f"{origin.url}/x.mar", folder) as download:
        assert download.path.read_bytes() == BODY

    assert [headers.get("range") for headers in origin.seen] == [None, None]


@pytest.mark.parametrize("has_length", [True, False])
def test_too_large_is_refused_by_announcement_and_by_fact(
    origin: Origin, folder: Path, has_length: bool
) -> None:
    """A server need not announce a length, nor tell the truth."""
    origin.has_length = has_length

    reason = fail(f"{origin.url}/x.mar", folder, limits=FetchLimits(max_bytes=1_000_000))

    assert reason == "it is larger than max_archive_bytes"
    assert sum(path.stat().st_size for path in folder.glob("*.part")) == 0


def test_a_redirect_is_followed_to_allowed_places(origin: Origin, folder: Path) -> None:
    """Release pages redirect to their storage."""
    origin.redirects = {"/x.mar": "/y.mar", "/y.mar": f"{origin.url}/z.mar"}

    with fetching(f"{origin.url}/x.mar", folder) as download:
        assert download.size_bytes == len(BODY)


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest", "file:///etc/passwd", "//evil/x", "http://[", ""]
)
def test_a_redirect_out_of_the_list_is_refused(origin: Origin, folder: Path, target: str) -> None:
    """Else one open redirect on an allowed host opens the whole network."""
    origin.redirects = {"/x.mar": target}

    reason = fail(f"{origin.url}/x.mar", folder, allowed=(rf"{origin.url}/x\.mar",))

    assert reason.startswith("it redirects")


def test_redirects_end(origin: Origin, folder: Path) -> None:
    """A circle is a failure, not a wait."""
    origin.redirects = {"/x.mar": "/x.mar"}

    assert fail(f"{origin.url}/x.mar", folder) == "it redirects too often"
    assert len(origin.seen) == 6


def test_a_body_that_trickles_ends_at_the_deadline(origin: Origin, folder: Path) -> None:
    """Each byte is in time, the whole never would be."""
    origin.trickle_s = 0.01
    started = time.monotonic()

    reason = fail(f"{origin.url}/x.mar", folder, limits=FetchLimits(total_timeout_s=0.4))

    assert reason == "it took longer than download_timeout_s"
    assert time.monotonic() - started < 5


def test_a_silent_server_ends_at_the_read_timeout(origin: Origin, folder: Path) -> None:
    """A hung origin costs seconds, not the hour of the whole download."""
    origin.trickle_s = 30
    limits = FetchLimits(total_timeout_s=20, read_timeout_s=0.1)
    origin.etag = ""

    assert "timed out" in fail(f"{origin.url}/x.mar", folder, limits=limits)


def test_a_download_can_be_stopped(origin: Origin, folder: Path) -> None:
    """A stop of the server does not wait for a download."""
    assert fail(f"{origin.url}/x", folder, should_stop=lambda: True) == "the download was stopped"


def test_a_busy_origin_is_asked_again(origin: Origin, folder: Path) -> None:
    """503 passes."""
    origin.statuses = [503, 200]

    with fetching(f"{origin.url}/x.mar", folder) as download:
        assert download.size_bytes == len(BODY)


@pytest.mark.parametrize("status", [204, 304, 401, 403, 404, 410])
def test_a_refusal_of_the_origin_is_final(origin: Origin, folder: Path, status: int) -> None:
    """Asking again would change nothing."""
    origin.statuses = [status]

    assert fail(f"{origin.url}/x.mar", folder) == f"status {status}"
    assert len(origin.seen) == 1


def test_nobody_listening_is_a_failure_at_once(origin: Origin, folder: Path) -> None:
    """A wrong port is told at once."""
    url = origin.url
    origin.close()
    started = time.monotonic()

    fail(f"{url}/x.mar", folder)

    assert time.monotonic() - started < 2


def test_two_at_once_download_one_after_the_other(origin: Origin, folder: Path) -> None:
    """They share one part file, and must not write it together."""
    sizes: list[int] = []

    def load() -> None:
        with fetching(f"{origin.url}/x.mar", folder) as download:
            sizes.append(len(download.path.read_bytes()))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert [len(BODY)] * 3 == sizes


def test_parts_nobody_came_back_for_are_cleaned(tmp_path: Path) -> None:
    """A disk does not fill up with failures."""
    (tmp_path / "old.part").touch()
    (tmp_path / "other").touch()

    clean_partials(tmp_path, now=time.time() + MAX_AGE_S - 60)
    assert (tmp_path / "old.part").exists()

    clean_partials(tmp_path, now=time.time() + MAX_AGE_S + 60)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


# -- S3 -----------------------------------------------------------------------

EXAMPLE = S3Credentials(
    "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1"
)


@pytest.mark.parametrize(
    ("path", "headers", "signature"),
    [
        (
            "/test.txt",
            {"Range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        ("/?lifecycle", {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "/?max-keys=2&prefix=J",
            {},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_signatures_are_those_of_the_published_examples(
    path: str, headers: dict[str, str], signature: str
) -> None:
    """The three worked examples of the S3 reference."""
    now = datetime(2013, 5, 24, tzinfo=UTC)

    signed = sign_get(f"https://examplebucket.s3.amazonaws.com{path}", headers, EXAMPLE, now)

    assert signed["authorization"].endswith(f"Signature={signature}")


def test_a_signed_download_signs_its_own_host_only(origin: Origin, folder: Path) -> None:
    """A redirect elsewhere must not carry our signature along."""
    other = Origin()
    origin.redirects = {"/x.mar": f"{other.url}/x.mar"}
    try:
        with fetching(f"{origin.url}/x.mar", folder, credentials=EXAMPLE):
            pass
    finally:
        other.close()

    assert "authorization" in origin.seen[0]
    assert "authorization" not in other.seen[0]


def test_credentials_come_whole_or_not_at_all() -> None:
    """The peer's three variables; a secret is never shown."""
    environment = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }

    whole = S3Credentials.from_environment(environment)

    assert whole == S3Credentials("key", "hush", "eu-central-1")
    assert "hush" not in repr(whole)
    for name in environment:
        assert S3Credentials.from_environment({**environment, name: ""}) is None
