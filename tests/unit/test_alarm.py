"""Time for the supervisor's loop, on both kinds of loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop
from open_descriptors import open_descriptors

from stoker.supervisor.alarm import Alarm

NEVER_S = 3600.0


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    new_loop: Callable[[], asyncio.AbstractEventLoop] = request.param
    made = new_loop()
    yield made
    made.close()


def ring(loop: asyncio.AbstractEventLoop, alarm: Alarm, delay_s: float) -> float:
    """How long after it was set it stopped the loop."""
    started = time.monotonic()  # before: whoever is interrupted here finds it late, never early
    alarm.set(delay_s)
    loop.run_forever()
    return time.monotonic() - started


@pytest.mark.parametrize("delay_s", [0.0, 0.0007, 0.003, 0.0104])
def test_alarm_rings_when_it_is_due_and_not_before(
    loop: asyncio.AbstractEventLoop, delay_s: float
) -> None:
    """
    One that rings early makes its owner look, find nothing due, and set it again.
    """
    alarm = Alarm(loop, loop.stop)

    took = [ring(loop, alarm, delay_s) for _ in range(5)]

    assert min(took) >= delay_s
    assert min(took) < delay_s + 0.005  # the others may have met a busy machine
    alarm.close()


def test_alarm_set_anew_rings_once_and_at_the_later_word(loop: asyncio.AbstractEventLoop) -> None:
    rung: list[float] = []
    alarm = Alarm(loop, lambda: rung.append(time.monotonic()))
    started = time.monotonic()

    alarm.set(NEVER_S)
    alarm.set(0.001)
    alarm.set(0.02)
    loop.call_later(0.06, loop.stop)
    loop.run_forever()

    assert len(rung) == 1
    assert rung[0] - started >= 0.02


def test_alarm_leaves_no_descriptor_and_no_ringing_behind(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.sleep(0))
    before = open_descriptors()
    rung: list[int] = []
    alarm = Alarm(loop, lambda: rung.append(1))
    alarm.set(0.001)

    alarm.close()
    loop.call_later(0.01, loop.stop)
    loop.run_forever()

    assert not rung
    assert open_descriptors() == before
