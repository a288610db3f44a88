"""A real server for every promise; see `live_fixtures.py`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from facts import wait_until
from live_crowds import Bystander, Crowd, count_connections, memory_bytes
from live_fixtures import *  # noqa: F403
from live_server import Server

MIB: Final = 1 << 20
#: What a process may keep of an attack.
KEPT_BYTES: Final = 48 * MIB

_NUMBERS = itertools.count(1)


@pytest.fixture
def model() -> str:
    """A name that nobody had before: what handlers note and logs say is this test's own."""
    return f"m{next(_NUMBERS)}"


@pytest.fixture
def crowd() -> Iterator[Callable[..., Crowd]]:
    """`crowd(server, model, connections, seconds)`."""
    crowds: list[Crowd] = []

    def gather(*about: Any) -> Crowd:
        crowds.append(Crowd(*about))
        return crowds[-1]

    yield gather
    for each in crowds:
        each.end()


@pytest.fixture
def attacked(server: Server) -> Iterator[Server]:
    """The server with an echo and its bystander; what the attack did is judged afterwards."""
    server.register("echo", "echo:handle")
    server.predict("echo", b"x" * MIB)
    before = memory_bytes(server)
    with Bystander(server, "echo") as bystander:
        yield server
        # Also those who were cut off have let go by then.
        wait_until(lambda: count_connections(server) <= 2, "the attackers are gone")
    bystander.judge()

    def grown_bytes() -> dict[str, int]:
        return {role: now - before[role] for role, now in memory_bytes(server).items()}

    # Answers that nobody takes any more may still be on their way through.
    wait_until(lambda: max(grown_bytes().values()) < KEPT_BYTES, lambda: f"kept: {grown_bytes()}")
