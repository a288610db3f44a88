"""Where a name may lead: contracts/torchserve.md 11."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from stoker.archives.destinations import is_permitted
from stoker.archives.fetch import FetchLimits, FetchRequest, fetched
from stoker.errors import DownloadFailed


@pytest.mark.parametrize(
    ("host", "address", "expected"),
    [
        ("models.example", "192.0.2.1", True),
        ("models.example", "10.1.2.3", True),
        ("models.example", "2001:db8::1", True),
        ("models.example", "127.0.0.1", False),
        ("models.example", "::1", False),
        ("models.example", "::ffff:127.0.0.1", False),
        ("models.example", "169.254.169.254", False),
        ("models.example", "::ffff:169.254.169.254", False),
        ("models.example", "fe80::1%eth0", False),
        ("models.example", "fd00:ec2::254", False),
        ("models.example", "0.0.0.0", False),
        ("models.example", "224.0.0.1", False),
        ("169.254.169.254", "169.254.169.254", False),
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("127.0.0.2", "127.0.0.2", True),
        ("::1", "::1", True),
        ("10.0.0.1", "127.0.0.1", False),
    ],
)
def test_which_addresses_are_asked(host: str, address: str, expected: bool) -> None:
    """This host only for who says so, a cloud's credentials for nobody."""
    assert is_permitted(host, address) == expected


@pytest.fixture
def origin() -> Iterator[Any]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", "http://models.example:1/x")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.asked = asked  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_a_name_that_turns_out_to_be_this_host_is_not_asked(
    origin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Allowed by name, and led elsewhere by its owner: nothing is sent, whatever listens there."""
    port = origin.server_address[1]
    real = socket.getaddrinfo

    def elsewhere(host: str, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "models.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", elsewhere)
    url = f"http://models.example:{port}/x.mar"

    with (
        pytest.raises(DownloadFailed) as failed,
        fetched(FetchRequest(url, url, (".*",)), tmp_path, FetchLimits()),
    ):
        pass

    assert failed.value.message == f"Failed to download archive from: {url}"
    assert failed.value.details["reason"] == "models.example leads to 127.0.0.1"
    assert origin.asked == []
