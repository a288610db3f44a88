"""Asking a running server over its own management API, as curl would."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from stoker import key_file
from stoker.addresses import Address
from stoker.errors import SettingsError

TIMEOUT_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 8 << 20
MAX_PAGES: Final = 100
PAGE_LIMIT: Final = 100


class ManagementError(Exception):
    """The server does not answer, or not with what we asked for."""


def list_models(address: Address, runtime_dir: Path) -> list[str]:
    """The names of all registered models; `runtime_dir` may hold the key to ask with."""
    key = _find_key(runtime_dir)
    names: list[str] = []
    token: str | None = None
    for _ in range(MAX_PAGES):
        query = {"limit": str(PAGE_LIMIT)}
        if token is not None:
            query["next_page_token"] = token
        page = _get(address, f"/models?{urlencode(query)}", key)
        try:
            names += [str(model["modelName"]) for model in page["models"]]
            token = page.get("nextPageToken")
        except (KeyError, TypeError, AttributeError):
            raise ManagementError("the answer is not a list of models") from None
        if not token:
            break
    return names


def _find_key(runtime_dir: Path) -> str | None:
    """Where callers must show one, the server has left a link to the file."""
    try:
        found = key_file.read_keys(runtime_dir / key_file.FILE_NAME).keys
    except (OSError, SettingsError):
        return None
    key = found.get(key_file.MANAGEMENT)
    return key.text if key is not None else None


def draw_workflow(address: Address, runtime_dir: Path, name: str) -> bytes:
    """The picture of a workflow, as SVG."""
    path = f"/workflows/{quote(name, safe='')}?graph=svg"
    return _fetch(address, path, _find_key(runtime_dir))


def _get(address: Address, path: str, key: str | None) -> Any:
    try:
        return json.loads(_fetch(address, path, key))
    except ValueError:
        raise ManagementError("the answer is not JSON") from None


def _fetch(address: Address, path: str, key: str | None) -> bytes:
    connection = _connect(address)
    headers = {"Host": "localhost"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read(MAX_ANSWER_BYTES)
        if answer.status != 200:
            raise ManagementError(f"it answers {answer.status}")
        return body
    except (OSError, http.client.HTTPException) as error:
        raise ManagementError(str(error) or type(error).__name__) from None
    finally:
        connection.close()


def _connect(address: Address) -> http.client.HTTPConnection:
    if address.is_unix:
        return _UnixConnection(address.path)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    if address.is_tls:
        # The certificate names the public host; we only look at ourselves.
        context = ssl._create_unverified_context()
        return http.client.HTTPSConnection(host, address.port, timeout=TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, address.port, timeout=TIMEOUT_S)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)
