"""Each layer alone still works: they lean on insides that others may change."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def server(checkout: Path) -> Iterator[Any]:
    from scenarios import ECHO
    from targets import local_server

    with local_server() as running:
        running.register(**ECHO.query())
        yield running


def run(script: Path, *arguments: str) -> Any:
    finished = subprocess.run(
        [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, check=True, timeout=60
    )
    return json.loads(finished.stdout)


def test_the_wire_alone_answers(server: Any, checkout: Path) -> None:
    """
    Link, supervisor and worker without HTTP.
    """
    flags = ["--in-flight=4", "--duration=0.3", "--warmup=0.1", f"--pid={server.pid}"]

    figures = run(
        checkout / "benchmarks" / "layers" / "wire_only.py", str(server.home / "runtime"), *flags
    )

    assert figures["failed"] == 0
    assert figures["requests_per_s"] > 0
    assert {"client", "supervisor", "worker"} <= set(figures["cpu_us_by_role"])


def test_the_least_server_says_what_the_network_says(checkout: Path) -> None:
    """
    Nobody may be compared with a server that does less work.
    """
    from cnn import BODY_BYTES, Classifier
    from limits import least_server
    from local_server import Client

    picture = bytes(range(256)) * (BODY_BYTES // 256)

    with least_server() as target, Client(target.url("cnn")) as client:
        answer = client.ask("POST", "/cnn", picture)

    assert answer.status == 200
    assert answer.body.decode() == Classifier()([picture])[0]


def test_http_alone_answers(checkout: Path) -> None:
    """
    The frontend with the answers at hand.
    """
    from limits import http_only
    from local_server import Client

    with http_only() as target, Client(target.url("echo")) as client:
        answer = client.ask("POST", "/predictions/echo", b"hello")

    assert answer.status == 200
    assert answer.body == b"x" * 100


def test_the_handler_alone_answers(checkout: Path) -> None:
    """
    The contract around a handler costs more than the handler, and not nothing.
    """
    figures = run(checkout / "benchmarks" / "layers" / "handler_only.py")

    assert figures["1"]["contract_us"] > figures["1"]["handler_us"] > 0
    assert figures["32"]["contract_us"] > 0


def test_a_bare_echo_answers_and_is_gone() -> None:
    """
    What everything is compared with.
    """
    from local_server import Client
    from targets import bare_asgi

    with bare_asgi() as target:
        with Client(target.url("echo")) as client:
            assert client.ask("POST", "/echo", b"hello").body == b"hello"
            assert client.ask("POST", "/size", b"hello").body == b"5"
        url = target.url("echo")

    with pytest.raises(OSError), Client(url) as client:
        client.ask("POST", "/echo", b"hello")
