"""The file that tokens live in: contracts/torchserve.md 3.10."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stoker.errors import SettingsError
from stoker.key_file import Key, read_keys, write_keys

PEERS = """{
  "management": {
    "key": "B-E5KSRM",
    "expiration time": "2024-02-16T21:12:24.801167Z"
  },
  "inference": {
    "key": "gNRuA7dS",
    "expiration time": "2024-02-16T21:12:24.801148123Z"
  },
  "API": {
    "key": "yv9uQajP"
  }
}"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "key_file.json"


def put(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_peers_own_file_is_understood(path):
    """Whoever migrates keeps his keys; Java prints up to nine digits."""
    keys = read_keys(put(path, PEERS)).keys

    assert [key.text for key in keys.values()] == ["B-E5KSRM", "gNRuA7dS", "yv9uQajP"]
    assert keys["management"].expires_at == pytest.approx(
        datetime(2024, 2, 16, 21, 12, 24, 801167, UTC).timestamp()
    )
    assert keys["API"].expires_at is None


def test_what_is_written_is_what_the_peer_writes(path):
    """Byte for byte, so its tools read ours."""
    keys = read_keys(put(path, PEERS.replace("148123Z", "148Z"))).keys

    write_keys(path, keys)

    assert path.read_text() == PEERS.replace("148123Z", "148Z")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["key_file.json"]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(path, monkeypatch):
    """A full disk must not cost the keys there are."""
    put(path, PEERS)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_keys(path, {"API": Key("x" * 10)})

    assert path.read_text() == PEERS
    assert [each.name for each in path.parent.iterdir()] == ["key_file.json"]


def test_a_link_is_written_through(path, tmp_path):
    """Secrets are often mounted elsewhere and linked."""
    real = put(tmp_path / "real.json", PEERS)
    path.symlink_to(real)

    write_keys(path, {"API": Key("x" * 10)})

    assert path.is_symlink()
    assert json.loads(real.read_text()) == {"API": {"key": "x" * 10}}


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_file_that_others_may_change_is_not_believed(path, mode):
    """Whoever can write it can manage the server."""
    with pytest.raises(SettingsError, match="can be changed by others"):
        read_keys(put(path, PEERS, mode))


@pytest.mark.parametrize(("mode", "expected"), [(0o600, False), (0o640, True), (0o444, True)])
def test_a_file_that_others_may_read_is_known_as_such(path, mode, expected):
    """Mounted secrets are; the log says so once."""
    assert read_keys(put(path, PEERS, mode)).is_exposed == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ("[" * 100_000, "is too large|is not JSON"),
        ('{"API": "secret-secret"}', "no key of 8 to 1024"),
        ('{"API": {"key": "short"}}', "no key of 8 to 1024"),
        ('{"API": {"key": "secret secret"}}', "no key of 8 to 1024"),
        ('{"API": {"key": "secret-secret", "expiration time": "soon"}}', "no readable"),
        ('{"API": {"key": "secret-secret", "expiration time": 17}}', "no readable"),
    ],
)
def test_a_malformed_file_stops_the_start_and_shows_nothing_of_itself(path, text, said):
    """It may be the operator's: not ours to overwrite, and not ours to print."""
    with pytest.raises(SettingsError, match=said) as refused:
        read_keys(put(path, text))

    assert "secret" not in refused.value.message
    assert "short" not in refused.value.message


def test_a_pipe_in_its_place_blocks_nobody(path):
    """Opening one would wait for a writer for ever."""
    os.mkfifo(path, 0o600)

    with pytest.raises(SettingsError, match="is not a file"):
        read_keys(path)


def test_a_key_does_not_show_in_a_repr():
    """Records end up in logs."""
    assert "secret" not in repr(Key("secret-secret"))
