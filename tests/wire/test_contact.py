"""Whether there is a supervisor: hellos, welcomes, and what lies between; time is a number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stoker.clock import FakeClock
from stoker.wire.contact import HELLO_INTERVAL_S, KNOCK_INTERVAL_S, LOST_AFTER_S, Contact
from stoker.wire.frames import FrontendHello

FIRST, SECOND = b"1" * 8, b"2" * 8


class Timer:
    """What is due, until it is cancelled."""

    def __init__(self, at: float, do: Callable[[], None]) -> None:
        self.at = at
        self.do = do
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """Timers, run as a test lets time pass."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self._timers: list[Timer] = []

    def call_later(self, delay_s: float, do: Callable[[], None]) -> Timer:
        self._timers.append(Timer(self.clock.now() + delay_s, do))
        return self._timers[-1]

    def advance(self, seconds: float) -> None:
        until = self.clock.now() + seconds
        while due := [t for t in self._timers if not t.is_cancelled and t.at <= until]:
            timer = min(due, key=lambda timer: timer.at)
            self._timers.remove(timer)
            self.clock.advance(max(0.0, timer.at - self.clock.now()))
            timer.do()
        self.clock.advance(max(0.0, until - self.clock.now()))


class Stage:
    """A frontend's contact with a supervisor that takes what is said, or not."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.is_taken = True
        self.hellos: list[FrontendHello] = []
        #: For how long it was cut, at every knock.
        self.knocks: list[float] = []
        self.contact = Contact(self.loop.clock, self._say, self.knocks.append)
        loop: Any = self.loop
        self.contact.seek(loop)

    def _say(self, hello: FrontendHello) -> None:
        if self.is_taken:
            self.hellos.append(hello)
        else:
            self.contact.cut()

    def hellos_in(self, seconds: float) -> int:
        self.hellos.clear()
        self.loop.advance(seconds)
        return len(self.hellos)

    def is_met(self) -> bool:
        """Whether somebody who waits for it now need not."""

        async def look() -> bool:
            waiting = asyncio.ensure_future(self.contact.wait(60.0))
            for _ in range(5):
                await asyncio.sleep(0)
            is_met = waiting.done()
            waiting.cancel()
            return is_met

        return asyncio.run(look())


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_who_knows_no_supervisor_knocks_until_there_is_one(stage: Stage) -> None:
    """
    A frontend that starts first must not lose a second when the supervisor comes.
    """
    assert stage.hellos_in(10.5 * KNOCK_INTERVAL_S) == 10
    assert not stage.is_met()
    assert not stage.knocks  # nobody was lost

    assert not stage.contact.welcome(FIRST)

    assert stage.is_met()
    assert stage.hellos[-1].incarnation == FIRST


def test_a_supervisor_that_is_there_hears_of_us_about_once_a_second(stage: Stage) -> None:
    stage.contact.welcome(FIRST)
    stage.loop.advance(HELLO_INTERVAL_S)

    assert stage.hellos_in(5 * HELLO_INTERVAL_S) == 5


def test_who_is_not_heard_knocks_and_counts_from_when_it_was_cut(stage: Stage) -> None:
    """
    What waits for a successor is given up by how long there has been none.
    """
    stage.contact.welcome(FIRST)
    stage.loop.advance(HELLO_INTERVAL_S)
    stage.is_taken = False

    stage.loop.advance(HELLO_INTERVAL_S + 10 * KNOCK_INTERVAL_S)

    assert not stage.is_met()
    assert len(stage.knocks) > 10
    cut_for_s = [count * KNOCK_INTERVAL_S for count in range(len(stage.knocks))]
    assert stage.knocks == pytest.approx(cut_for_s)


def test_a_supervisor_that_answers_nothing_is_gone(stage: Stage) -> None:
    """
    Its socket takes what we say even when it hangs.
    """
    stage.contact.welcome(FIRST)

    stage.loop.advance(LOST_AFTER_S - HELLO_INTERVAL_S)
    assert stage.is_met()

    stage.loop.advance(3 * HELLO_INTERVAL_S)
    assert not stage.is_met()
    assert stage.knocks


@pytest.mark.parametrize(("incarnation", "is_successor"), [(FIRST, False), (SECOND, True)])
def test_who_comes_back_is_told_from_a_successor(
    stage: Stage, incarnation: bytes, is_successor: bool
) -> None:
    """
    Only a successor must be sent again what is unanswered.
    """
    stage.contact.welcome(FIRST)
    stage.is_taken = False
    stage.loop.advance(2 * HELLO_INTERVAL_S)
    stage.is_taken = True

    assert stage.contact.welcome(incarnation) is is_successor

    assert stage.is_met()
    stage.knocks.clear()
    stage.loop.advance(2 * HELLO_INTERVAL_S)
    assert not stage.knocks
