"""A peer is installed outside the checkout, answers for every model, and is gone afterwards."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

SERVER = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print("child", child.pid, flush=True)
class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *about): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""


def a_peer(code: str) -> Any:
    from peers.peer import Peer, Place

    class Tiny(Peer):
        name = "tiny"
        requirements = ("nothing",)
        start_timeout_s = 20.0

        def command(self, place: Place) -> list[str]:
            return [sys.executable, "-c", code, str(place.port)]

    return Tiny()


def running(code: str) -> Any:
    from peers.environments import Environment
    from peers.running import RunningPeer
    from scenarios import ECHO

    return RunningPeer(a_peer(code), Environment(Path(sys.prefix), {}), (ECHO,))


def test_a_peer_answers_when_entered_and_is_gone_when_left() -> None:
    """
    A child that its server leaves behind would use CPU beside the next peer.
    """
    with running(SERVER) as peer:
        child = int((peer.home / "output.log").read_text().split()[1])
        connection = http.client.HTTPConnection("127.0.0.1", peer.place.port, timeout=10)
        connection.request("POST", "/echo", b"hello")
        assert connection.getresponse().read() == b"hello"
        connection.close()
        root = peer.pid

    assert not psutil.pid_exists(root)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"
    assert not peer.home.exists()


def test_a_peer_that_does_not_start_says_why() -> None:
    """
    The reason stands in the table.
    """
    from peers.running import PeerFailed

    with (
        pytest.raises(PeerFailed, match="status 3: NoLuckError today"),
        running("print('NoLuckError today'); raise SystemExit(3)"),
    ):
        pass


def test_a_program_that_is_missing_is_the_reason(tmp_path: Path) -> None:
    """
    Nothing is downloaded for a server that could not run anyway.
    """
    from peers.environments import CannotInstall, prepare

    peer = a_peer("")
    type(peer).needs = ("no-such-program-anywhere",)

    with pytest.raises(CannotInstall, match="no-such-program-anywhere"):
        prepare(peer, tmp_path)

    assert not [*tmp_path.iterdir()]


def test_environments_are_outside_the_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    They are gigabytes, and no linter or package should meet them.
    """
    from peers.environments import default_folder

    monkeypatch.delenv("STOKER_BENCH_PEERS", raising=False)
    assert checkout not in default_folder().parents

    monkeypatch.setenv("STOKER_BENCH_PEERS", str(tmp_path))
    assert default_folder() == tmp_path


def test_every_peer_knows_its_models_and_how_to_ask_for_them(tmp_path: Path) -> None:
    """
    A recipe that is wrong would be found an hour into a run.
    """
    from peers.known import PEERS
    from peers.peer import Place
    from scenarios import ECHO, MODELS

    for peer in PEERS:
        home = tmp_path / peer.name
        home.mkdir()
        place = Place(tmp_path / "bin", home, 20001, 20002, peer.models, 2048)

        assert set(peer.models) <= set(MODELS)
        assert ECHO in peer.models
        assert all(isinstance(word, str) for word in peer.command(place))
        assert peer.url(place, "echo").startswith("http://127.0.0.1:20001/")
        assert b"x" * 100 in peer.body(ECHO, 100).data
