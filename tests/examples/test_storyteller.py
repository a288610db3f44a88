"""examples/storyteller: text that comes as it is written, for many at once."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from facts import wait_until
from readme_lines import Line, curl_lines

pytestmark = pytest.mark.slow

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def lines(checkout: Path) -> list[Line]:
    readme = checkout / "examples" / "storyteller" / "README.md"
    return curl_lines(readme.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def server(checkout: Path, tmp_path_factory: Any, lines: list[Line]) -> Iterator[Any]:
    """With the storyteller as the README has it registered."""
    from local_server import LocalServer

    store = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(checkout / "examples" / "storyteller"))
        _pack_module(checkout / "examples" / "storyteller" / "pack.py").make(store)
    with LocalServer(model_store=store) as server:
        register = lines[0]
        said = json.loads(_start(register.command, server).communicate(timeout=DEADLINE_S)[0])
        assert register.answer is not None
        assert said == json.loads(register.answer)
        yield server


def _pack_module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("pack_storyteller", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _start(command: str, server: Any) -> subprocess.Popen[bytes]:
    """A curl line of the README, against this server."""
    for said, meant in (
        ("http://localhost:8080", server.inference),
        ("http://localhost:8081", server.management),
        ("curl ", "exec curl -sS --noproxy '*' "),
    ):
        command = command.replace(said, meant)
    return subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE)


def _describe(server: Any) -> Any:
    with server.client("management") as client:
        return client.ask("GET", "/models/storyteller").json()[0]


def test_the_readmes_stream_comes_as_it_is_written(server: Any, lines: list[Line]) -> None:
    """
    `curl -N`: all the characters that were asked for.
    """
    (line,) = [line for line in lines if " -N " in line.command]

    text, _ = _start(line.command, server).communicate(timeout=DEADLINE_S)

    assert len(text.decode()) == 300
    assert " " in text.decode()


def test_a_short_text_is_complete_while_a_long_one_is_written(
    server: Any, lines: list[Line]
) -> None:
    """
    What the example is there to show.
    """
    (line,) = [line for line in lines if " -N " in line.command]
    long = _start(line.command.replace("300", "10000"), server)
    assert long.stdout is not None
    assert long.stdout.read(1)

    short, _ = _start(line.command.replace("300", "20"), server).communicate(timeout=DEADLINE_S)

    assert len(short.decode()) == 20
    assert long.poll() is None
    long.kill()
    long.wait()
    long.stdout.close()


def test_the_same_seed_writes_the_same(server: Any) -> None:
    """
    Alone; in company sums are rounded otherwise.
    """
    body = json.dumps({"prompt": "A worker", "length": 40, "seed": 5}).encode()
    with server.client() as client:
        texts = {
            client.ask("POST", "/predictions/storyteller", body, "application/json").body
            for _ in range(2)
        }

    assert len(texts) == 1


@pytest.mark.parametrize(
    "body", [b"[1]", b'{"length": 0}', b'{"length": "long"}', b'{"boldness": []}']
)
def test_a_request_that_cannot_be_written_is_refused_alone(
    server: Any, lines: list[Line], body: bytes
) -> None:
    """
    With 400 and the reason; whoever is being written goes on.
    """
    (line,) = [line for line in lines if " -N " in line.command]
    long = _start(line.command.replace("300", "10000"), server)
    assert long.stdout is not None
    assert long.stdout.read(1)

    with server.client() as client:
        answer = client.ask("POST", "/predictions/storyteller", body, "application/json")

    assert answer.status == 400, answer.body
    assert long.stdout.read(1)
    long.kill()
    long.wait()
    long.stdout.close()


def test_clients_that_left_are_forgotten(server: Any, lines: list[Line]) -> None:
    """
    Nothing is left in the queue, and describe says what kind of model it is.
    """
    (line,) = [line for line in lines if " -N " in line.command]
    many = [_start(line.command.replace("300", "10000"), server) for _ in range(12)]
    queue = lambda: _describe(server)["jobQueueStatus"]["pendingRequests"]  # noqa: E731
    wait_until(lambda: queue() >= 1, "more have come than are written at once")

    for process in many:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    wait_until(lambda: queue() == 0, "nobody waits any more")
    assert _describe(server)["continuousBatching"] is True
