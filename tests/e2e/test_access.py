"""A server that asks for keys: who gets in, what survives, and that nothing leaks."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from process_titles import title_of


@pytest.fixture(scope="module")
def server_flags() -> tuple[str, ...]:
    return ("--disable-token-authorization", "false", "--frontend-processes", "2")


def key(server: Any, name: str) -> str:
    text: str = json.loads((server.home / "key_file.json").read_text())[name]["key"]
    return text


def manage(server: Any, method: str, path: str, name: str = "management") -> Any:
    return server.ask("management", method, path, authorization=f"Bearer {key(server, name)}")


def ping(server: Any, bearer: str) -> int:
    status: int = server.ask("inference", "GET", "/ping", authorization=f"Bearer {bearer}").status
    return status


@pytest.fixture
def model(server_of_module: Any) -> Any:
    """A model with a worker, for as long as the test needs it."""
    path = "/models?model_name=m&handler=echo:handle&initial_workers=1&synchronous=true"
    answer = manage(server_of_module, "POST", path)
    assert answer.status == 200, answer.text
    yield "m"
    assert manage(server_of_module, "DELETE", "/models/m").status == 200


def test_the_keys_are_where_the_peer_leaves_them(server_of_module, model):
    """
    `key_file.json` in the working directory, for its owner alone; the log says where.
    """
    server = server_of_module
    path = server.home / "key_file.json"

    answer = server.ask(
        "inference",
        "POST",
        "/predictions/m",
        b"hi",
        authorization=f"Bearer {key(server, 'inference')}",
    )

    assert path.stat().st_mode & 0o777 == 0o600
    assert server.logged("callers must show a key", key_file=str(path))
    assert (answer.status, answer.body) == (200, b"hi")
    assert server.ask("inference", "POST", "/predictions/m", b"hi").status == 400


def test_a_renewed_key_counts_in_every_process_at_once(server_of_module):
    """
    Two processes share the listeners: none may go on taking the old key.
    """
    server = server_of_module
    old = key(server, "inference")
    before = {ping(server, old) for _ in range(20)}

    renewal = manage(server, "GET", "/token?type=inference", "API")
    after = {ping(server, old) for _ in range(20)}
    now = {ping(server, key(server, "inference")) for _ in range(20)}

    assert renewal.status == 200
    assert (before, after, now) == ({200}, {400}, {200})


@pytest.mark.parametrize("victim", ["process", "master"])
def test_keys_survive_a_frontend_that_dies(server_of_module, until, victim):
    """
    A client's key must not end with a process of ours.
    """
    server = server_of_module
    bearer = key(server, "inference")
    document = (server.home / "key_file.json").read_text()
    # By descent: a process that has just been forked bears its master's title.
    masters = psutil.Process(server.process.pid).children()
    master = next(one for one in masters if "stoker: frontend" in title_of(one))
    if victim == "process":
        server.expect_error("Worker (pid:")
    died = master.children()[0] if victim == "process" else master

    died.kill()

    def is_back() -> bool:
        try:
            server.read_addresses()
            return not died.is_running() and ping(server, bearer) == 200
        except (OSError, ValueError):
            return False

    until(is_back, "the key opens the successor's door")
    if victim == "process":
        until(
            lambda: any(line["event"].startswith("Worker (pid:") for line in server.log_lines()),
            "the master has noticed",
        )
    assert (server.home / "key_file.json").read_text() == document
    server.check_errors()


def test_status_shows_its_key(server_of_module, model):
    """
    Our own tools find the key by the runtime folder, from anywhere.
    """
    command = [sys.executable, "-P", "-m", "stoker.cli", "status", "--json"]

    ran = subprocess.run(
        [*command, "--runtime-dir", str(server_of_module.runtime_dir)],
        capture_output=True,
        check=False,
        cwd="/",
    )

    assert json.loads(ran.stdout)["models"] == ["m"]
    assert ran.returncode == 0


def test_no_key_shows_anywhere(server_of_module, model):
    """
    Not in logs, environments, command lines, files, answers: only in the key file.
    """
    server = server_of_module
    secrets = [key(server, name) for name in ("management", "inference", "API")]
    wrong = "guessed-" + "x" * 30
    answers = [
        manage(server, "GET", "/models/m"),
        manage(server, "GET", "/models/m?customized=true"),
        manage(server, "OPTIONS", "/"),
        manage(server, "GET", "/models/none"),
        manage(server, "GET", "/token?type=management", "API"),
        manage(server, "GET", "/token?type=none", "API"),
        server.ask("inference", "GET", "/ping", authorization=f"Bearer {wrong}"),
        server.ask("inference", "GET", "/ping", authorization=f"Bearer {secrets[0]}"),
        server.ask("metrics", "GET", "/metrics"),
    ]
    secrets = [*secrets, *(key(server, name) for name in ("management", "inference")), wrong]

    places = {f"answer {i}": answer.body for i, answer in enumerate(answers)}
    for process in [psutil.Process(server.process.pid), *server.tree()]:
        for name in ("environ", "cmdline"):
            # A process that ends meanwhile, a worker's helper for instance, shows nothing.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                said = Path(f"/proc/{process.pid}/{name}").read_bytes()
                places[f"{name} of {process.pid}"] = said
    for path in server.home.rglob("*"):
        if path.is_file() and path.name != "key_file.json":
            places[str(path)] = path.read_bytes()

    for secret in secrets:
        assert [place for place, said in places.items() if secret.encode() in said] == []
    assert any("server.log" in place for place in places)
    assert any("m/1.0.log" in place for place in places)


def test_open_management_is_refused(tmp_path):
    """
    Exit code 78, one line that names the ways out, and nothing was opened.
    """
    ran = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "stoker.cli", "serve"),
            *("--management-address", "http://0.0.0.0:0", "--runtime-dir", str(tmp_path / "run")),
        ],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        text=True,
    )

    assert ran.returncode == 78
    assert (
        "management_address http://0.0.0.0:0 can be reached from other hosts without credentials; "
        "use a loopback or unix address, ask callers for tokens "
        "(disable_token_authorization=false) or for certificates (https and client_ca_file), "
        "or say insecure_management=true"
    ) in ran.stderr
    assert [*tmp_path.iterdir()] == []


def test_listeners_on_unix_sockets_outlive_their_processes(start_server, tmp_path, until):
    """
    Their files stay while processes come and go, are for us alone, and go at the end.
    """
    paths = {name: tmp_path / f"{name}.sock" for name in ("inference", "management", "metrics")}
    for path in paths.values():
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
    flags = [f"--{name}-address=unix:{path}" for name, path in paths.items()]
    server = start_server(*flags)
    about = {name: (path.stat().st_ino, path.stat().st_mode) for name, path in paths.items()}

    def statuses() -> list[int]:
        targets = {"inference": "/ping", "management": "/models", "metrics": "/metrics"}
        return [over_unix(paths[name], target) for name, target in targets.items()]

    before = statuses()
    server.process.send_signal(signal.SIGHUP)
    until(lambda: len(server.logged("serving")) == 2, "another process serves")
    after = statuses()

    assert before == after == [200, 200, 200]
    assert {stat.S_IMODE(mode) for _, mode in about.values()} == {0o600}
    for name, path in paths.items():
        assert (path.stat().st_ino, path.stat().st_mode) == about[name]
    server.stop()
    assert [*tmp_path.glob("*.sock")] == []


def over_unix(path: Path, target: str) -> int:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        return int(client.recv(65536).split(b" ")[1])


def test_a_certificate_is_renewed_by_a_signal(start_server, tmp_path, until):
    """
    SIGHUP: new connections see the new certificate; a broken one is refused and the old stays.
    """
    from certificates import Authority

    authority = Authority(tmp_path)
    first, second = authority.issue("first"), authority.issue("second")
    pair = first.pair
    server = start_server(
        "--inference-address",
        "https://127.0.0.1:0",
        *("--certificate-file", str(pair["certificate_file"])),
        *("--private-key-file", str(pair["private_key_file"])),
    )
    kept = server.connect("management")

    for name, path in second.pair.items():
        pair[name].write_bytes(path.read_bytes())
    server.process.send_signal(signal.SIGHUP)
    until(lambda: presented(server) == second.der, "the new certificate is served")
    server.expect_error("certificates were not renewed")
    pair["certificate_file"].write_text("broken")
    server.process.send_signal(signal.SIGHUP)
    server.wait_logged("certificates were not renewed; the old ones stay")

    # A process that is leaving may hang up on who has only just connected.
    shown = until(lambda: presented(server), "somebody shakes hands")

    assert shown == second.der
    kept.close()


def presented(server: Any) -> bytes:
    """The certificate that the inference listener shows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    where = urlsplit(server.addresses["inference"])
    try:
        with (
            socket.create_connection((where.hostname, where.port), 5) as plain,
            context.wrap_socket(plain) as secure,
        ):
            return secure.getpeercert(True) or b""
    except OSError:
        return b""
