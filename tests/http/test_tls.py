"""https listeners: contracts/torchserve.md 1.1."""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Issued

from stoker.errors import SettingsError
from stoker.frontend.tls import read_material
from stoker.settings import Settings
from stoker.wire.arena_folder import arena_folder
from stoker.wire.arena_layout import Descriptor
from stoker.wire.arena_reader import ArenaReader

SECURE = "https://127.0.0.1:0"
MIB = 1 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def server(authority: Authority) -> Issued:
    return authority.issue("server")


def trusting(authority: Authority, client: Issued | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    if client is not None:
        context.load_cert_chain(client.certificate_file, client.private_key_file)
    return context


def encrypt(client: Any, context: ssl.SSLContext) -> Any:
    """The same client, speaking TLS from now on."""
    client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
    return client


@pytest.fixture(scope="module")
def secure_of_module(make_settings, frontend_of_module, server) -> Iterator[Any]:
    settings = make_settings(
        inference_address=SECURE,
        max_request_size=40 * MIB,
        max_response_size=40 * MIB,
        **server.pair,
    )
    running = type(frontend_of_module)(settings)
    yield running
    running.stop()


@pytest.fixture
def secure(secure_of_module, supervisor) -> Any:
    """A frontend whose inference listener is https, and a clean supervisor."""
    return secure_of_module


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_predictions_go_over_tls(secure, authority, echo, version):
    """1.2 is what the peer speaks; newer is better."""
    context = trusting(authority)
    context.minimum_version = context.maximum_version = version
    client = encrypt(secure.client(), context)

    answers = [client.request("POST", "/predictions/echo", b"hi") for _ in range(3)]

    assert [(answer.status, answer.body) for answer in answers] == [(200, b"hi")] * 3


def test_older_tls_is_refused(secure):
    """1.0 and 1.1 are broken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises((ssl.SSLError, ConnectionError)):
        encrypt(secure.client(), context)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /ping HTTP/1.1\r\nHost: t\r\n\r\n",
        b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n",
    ],
)
def test_plain_http_is_told_to_use_https(secure, supervisor, head):
    """The peer's status and body, which is not the shape of its errors."""
    client = secure.client()
    client.send(head)

    answer = client.read()

    assert answer.status_line == "HTTP/1.1 403 Forbidden"
    assert answer.body == (
        b'{\n  "status": "This TorchServe instance only accepts HTTPS requests"\n}\n'
    )
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id")
    assert answer.is_closed
    assert supervisor.calls == supervisor.jobs == []


def test_who_says_nothing_keeps_nobody_waiting(secure, authority, echo):
    """A silent connection costs a socket, not a turn."""
    silent = [secure.client() for _ in range(20)]
    half = secure.client()
    half.send(b"\x16\x03\x01")

    answer = encrypt(secure.client(), trusting(authority)).request("GET", "/predictions/echo")

    assert answer.status == 200
    for client in (*silent, half):
        client.close()


def test_garbage_is_hung_up_on(secure):
    """Not a handshake, and no words for it."""
    client = secure.client()

    client.send(b"\x16" + b"\xff" * 200)

    assert b"HTTP" not in client.read_rest()


@pytest.mark.slow
def test_large_bodies_cross_tls_whole(secure, supervisor, authority):
    """32 MiB, in through shared memory and out through the socket."""
    body = os.urandom(MIB) * 32
    digests: list[str] = []
    reader = ArenaReader(arena_folder(secure.frontend.settings.runtime_dir))

    def model(job: Any) -> list[Any]:
        taken = job.payload.parameters[-1].body
        if isinstance(taken, Descriptor):
            taken = bytes(reader.read(job.job.job_id[:8], taken))
        digests.append(hashlib.sha256(taken).hexdigest())
        return [job.final(taken)]

    supervisor.models["m"] = model
    client = encrypt(secure.client(), trusting(authority))

    head = f"POST /predictions/m HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n"
    client.send(head.encode())
    client.send(body)
    status_line, _ = client.take_head()
    got = bytearray()
    while len(got) < len(body):
        got += client.read_some()
    again = client.request("POST", "/predictions/m", b"small")
    reader.close()

    assert digests[0] == hashlib.sha256(body).hexdigest()
    assert status_line == "HTTP/1.1 200 "
    assert got == body
    assert again.body == b"small"


def test_answers_stream_over_tls(secure, supervisor, authority):
    """Piece by piece, not all at the end."""
    supervisor.models["m"] = lambda job: [job.chunk(b"one")]
    client = encrypt(secure.client(), trusting(authority))
    client.send(b"GET /predictions/m HTTP/1.1\r\nHost: t\r\n\r\n")
    client.take_head()

    first = client.read_chunk()
    supervisor.send_later(supervisor.jobs[0].chunk(b"two"), supervisor.jobs[0].final(b"three"))
    rest = list(client.read_chunks())

    assert (first, rest) == (b"one", [b"two", b"three"])


@pytest.mark.parametrize("kind", ["PKCS12", "pkcs12"])
def test_a_key_store_serves_its_whole_chain(start_frontend, authority, server, echo, kind):
    """`keystore`, with the peer's default password."""
    running = start_frontend(inference_address=SECURE, keystore=server.keystore, keystore_type=kind)

    client = encrypt(running.client(), trusting(authority))

    assert client.request("GET", "/predictions/echo").status == 200
    assert client.socket.getpeercert(True) == server.der


def test_without_any_key_material_a_certificate_is_made(start_frontend, echo):
    """The peer does; the log says that clients cannot check it."""
    running = start_frontend(inference_address=SECURE)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    client = encrypt(running.client(), context)

    assert client.request("GET", "/predictions/echo").status == 200


def test_management_can_ask_for_certificates(start_frontend, supervisor, authority, server, folder):
    """`client_ca_file`: only who that authority knows gets in, and only there."""
    supervisor.verbs["list"] = lambda arguments: {"models": [], "total": 0}
    supervisor.verbs["health"] = lambda arguments: {"is_healthy": True}
    running = start_frontend(
        inference_address=SECURE,
        management_address=SECURE,
        client_ca_file=authority.path,
        **server.pair,
    )
    stranger = Authority(folder, "stranger").issue("somebody")

    known = encrypt(running.client("management"), trusting(authority, authority.issue("operator")))
    inference = encrypt(running.client("inference"), trusting(authority))

    assert known.request("GET", "/models").status == 200
    assert inference.request("GET", "/ping").status == 200
    for who in (None, stranger):
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            # With TLS 1.3 the client learns of it when it reads.
            encrypt(running.client("management"), trusting(authority, who)).request(
                "GET", "/models"
            )


# -- reading the files ---------------------------------------------------------


def test_unusable_key_material_is_a_settings_error(authority, server, folder):
    """Each is one clear line at start, and never a question on the terminal."""
    other = authority.issue("other")
    locked = authority.issue("locked", password="secret")
    nothing = folder / "nothing.pem"
    nothing.write_text("nothing")
    java = folder / "store.jks"
    java.write_bytes(b"\xfe\xed\xfe\xed" + b"\0" * 20)
    cases: list[tuple[dict[str, Any], str]] = [
        ({**server.pair, "private_key_file": other.private_key_file}, "does not belong"),
        ({**server.pair, "certificate_file": nothing}, "is of no use"),
        ({**server.pair, "certificate_file": folder / "missing"}, "cannot be read: No such file"),
        (locked.pair, "has a password"),
        ({"keystore": server.keystore, "keystore_pass": "guess"}, "wrong keystore_pass"),
        ({"keystore": java}, "keytool -importkeystore -srckeystore"),
        ({"keystore": server.keystore, "keystore_type": "JKS"}, "-deststoretype PKCS12"),
        ({**server.pair, "client_ca_file": nothing}, "client_ca_file holds no certificates"),
    ]
    for changes, said in cases:
        with pytest.raises(SettingsError) as refused:
            read_material(Settings(**changes))

        assert said in refused.value.message
        assert "guess" not in refused.value.message


def test_an_open_key_file_is_warned_about(server, authority, capfd):
    """`chmod 600` is what the operator forgot."""
    exposed = authority.issue("exposed")
    exposed.private_key_file.chmod(0o640)

    read_material(Settings(**server.pair))
    quiet = capfd.readouterr()
    read_material(Settings(**exposed.pair))
    said = capfd.readouterr()

    assert "others may use this private key" not in quiet.out + quiet.err
    assert "others may use this private key" in said.out + said.err


def test_key_material_does_not_show_in_a_repr(server):
    """Records end up in logs."""
    material = read_material(Settings(**server.pair))

    assert "PRIVATE" not in repr(material)


def test_each_listener_has_its_own_address_and_dialect(
    start_frontend, server, authority, short_folder, supervisor
):
    """One process: https for one dialect, a Unix socket for another, plain HTTP for a third."""
    path = f"{short_folder}/own.sock"
    supervisor.verbs["list"] = lambda arguments: {"total": 0, "models": []}
    listeners = (
        "https://127.0.0.1:0 mms management",
        f"unix:{path} torchserve management",
        "http://127.0.0.1:0 mms inference",
    )
    running = start_frontend(
        inference_address=Settings().inference_address,
        management_address=Settings().management_address,
        metrics_address=Settings().metrics_address,
        listeners=listeners,
        **server.pair,
    )

    encrypted = encrypt(running.client("mms/management"), trusting(authority))
    local = running.client("torchserve/management")
    plain = running.client("mms/management")

    assert encrypted.request("GET", "/models").json == {"models": []}
    assert local.request("GET", "/models/m/1.0/nothing").status == 404
    refused = plain.request("GET", "/models")
    assert refused.json == {"status": "This MMS instance only accepts HTTPS requests"}
    assert refused.status == 403
