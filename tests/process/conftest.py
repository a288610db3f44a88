"""What tests of real processes share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import uvloop
from launcher_host import DEADLINE_S, Host, no_pidfd


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
