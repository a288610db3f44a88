"""The keys as processes hold them: contracts/torchserve.md 3.10."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stoker.errors import SettingsError
from stoker.frontend.keyring import Keyring

NAMES = ("management", "inference", "API")
NOW = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "key_file.json"


@pytest.fixture
def make(path: Path, clock: Clock) -> Callable[..., Keyring]:
    """A server's keyring; `open` is its start."""

    def build(lifetime_s: float = 3600.0) -> Keyring:
        keyring = Keyring(path, lifetime_s, path.parent, clock)
        keyring.open()
        return keyring

    return build


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def header(path: Path, name: str) -> bytes:
    return f"Bearer {read(path)[name]['key']}".encode()


def test_a_start_keeps_what_is_valid_and_renews_what_is_not(make, path, clock):
    """The peer makes new keys at every start and locks every client out."""
    make()
    first = read(path)
    clock.now += 1800
    document = read(path)
    document["inference"]["expiration time"] = "2020-01-01T00:00:00Z"
    path.write_text(json.dumps(document))

    make()
    second = read(path)

    assert second["management"] == first["management"]
    assert second["API"] == first["API"]
    assert second["inference"]["key"] != first["inference"]["key"]


def test_a_key_dies_to_the_moment(make, path, clock):
    """An expired key is no key."""
    keyring = make(lifetime_s=10)
    mine = header(path, "inference")

    clock.now = NOW + 9.9
    before = keyring.opens("inference", mine)
    clock.now = NOW + 10
    after = keyring.opens("inference", mine)

    assert (before, after) == (True, False)


def test_a_fork_learns_of_a_renewal_at_once(make, path):
    """The page is shared, the copies are not."""
    keyring = make()
    old = header(path, "inference")
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.read(ready, 1)
            is_old_dead = not keyring.opens("inference", old)
            code = 0 if is_old_dead and keyring.opens("inference", header(path, "inference")) else 2
        finally:
            os._exit(code)

    keyring.renew("inference")
    os.write(go, b"x")
    _, status = os.waitpid(pid, 0)

    os.close(ready)
    os.close(go)
    assert os.waitstatus_to_exitcode(status) == 0


def test_renewals_at_once_lose_no_key(make, path):
    """Two operators, two processes: each writes the file as a whole."""
    keyrings = [make() for _ in range(4)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: keyrings[i % 4].renew(NAMES[i % 2]), range(40)))

    document = read(path)
    assert set(document) == set(NAMES)
    assert all(ring.opens("inference", header(path, "inference")) for ring in keyrings)
    assert all(ring.opens("management", header(path, "management")) for ring in keyrings)
    assert [each.name for each in path.parent.iterdir()] == ["key_file.json"]


@pytest.mark.parametrize("damage", ["gone", "malformed", "open to all"])
def test_a_damaged_file_leaves_the_keys_we_know(make, path, damage):
    """A slip of an editor must neither lock everybody out nor let anybody in."""
    keyring = make()
    mine = header(path, "inference")
    if damage == "gone":
        path.unlink()
    elif damage == "malformed":
        path.write_text("{")
    else:
        path.write_text(json.dumps({"inference": {"key": "planted-by-others"}}))
        path.chmod(0o666)

    keyring.refresh()

    assert keyring.opens("inference", mine)
    assert not keyring.opens("inference", b"Bearer planted-by-others")


def test_a_name_that_the_file_does_not_have_opens_nothing(make, path):
    """Taking a key out of the file closes its door."""
    keyring = make()
    document = read(path)
    mine = header(path, "inference")
    del document["inference"]
    path.write_text(json.dumps(document))

    keyring.refresh()

    assert not keyring.opens("inference", mine)
    assert not keyring.opens("inference", b"Bearer ")
    assert not keyring.opens("inference", b"")


def test_a_place_that_cannot_be_written_stops_the_start(tmp_path, clock):
    """With a way out: the setting."""
    keyring = Keyring(tmp_path / "no" / "key_file.json", 60, tmp_path, clock)

    with pytest.raises(SettingsError, match=r"cannot be written: .*; name a place .* key_file"):
        keyring.open()


def test_an_operators_keys_need_no_writing(path, clock, monkeypatch):
    """All three given and endless: a read-only secret is enough."""
    path.write_text(json.dumps({name: {"key": f"{name}-given-by-hand"} for name in NAMES}))
    path.chmod(0o400)
    before = path.stat().st_ino
    keyring = Keyring(path, 60, path.parent, clock)

    keyring.open()
    clock.now += 10**9

    assert keyring.opens("inference", b"Bearer inference-given-by-hand")
    assert path.stat().st_ino == before
