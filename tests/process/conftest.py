"""What tests of real processes share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from facts import wait_until
from launcher_host import DEADLINE_S, Host, no_pidfd
from lone_supervisor import LoneSupervisor


@pytest.fixture(params=["asyncio", "uvloop", "without pidfd"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    loop = uvloop.new_event_loop() if request.param == "uvloop" else asyncio.new_event_loop()
    # Let the loop open what it opens once, so that later counts are ours.
    loop.run_until_complete(asyncio.sleep(0))
    options = {"open_pidfd": no_pidfd} if request.param == "without pidfd" else {}
    host = Host(loop, **options)
    yield host
    assert loop.run_until_complete(host.launcher.close(DEADLINE_S)) == ()
    loop.close()


@pytest.fixture(scope="module")
def supervisor_of_module() -> Iterator[LoneSupervisor]:
    supervisor = LoneSupervisor()
    # Before, it takes a hello and does not answer: a real frontend says it again.
    wait_until(lambda: supervisor.logged("supervisor ready"), "it serves")
    yield supervisor
    supervisor.destroy()


@pytest.fixture
def supervisor(supervisor_of_module: LoneSupervisor) -> Iterator[LoneSupervisor]:
    """The module's supervisor, without models and still well afterwards."""
    yield supervisor_of_module
    assert supervisor_of_module.process.poll() is None
    frontend = supervisor_of_module.frontend()
    for model in frontend.call("list", limit=100, offset=0).value["models"]:
        assert frontend.call("unregister", model=model["model"]).code is None


@pytest.fixture
def gate(supervisor: LoneSupervisor) -> Iterator[Callable[[], None]]:
    """Lets the handler of a job `gate` go on, once it is there."""
    path = supervisor.home / "gate"
    os.mkfifo(path)

    def let_go() -> None:
        os.close(wait_until(lambda: _open_if_read(path), "a handler waits at the gate"))

    yield let_go
    path.unlink()


def _open_if_read(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    return None


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
