"""The guard on the rate of errors: contracts/djl-serving.md 2.1."""

from __future__ import annotations

import pytest

from stoker.clock import FakeClock
from stoker.errors import SettingsError
from stoker.frontend.error_rates import ErrorRates, clear_mark, parse_rate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10", (10, 60.0)),
        ("3/PT5M", (3, 300.0)),
        ("1/PT1H30M", (1, 5400.0)),
        ("2/P1DT1.5S", (2, 86401.5)),
    ],
)
def test_rates_are_read_as_the_peer_reads_them(text, expected):
    """
    `<count>[/<ISO-8601 duration>]`, a minute by default.
    """
    assert parse_rate(text, "error_rate_any") == expected


@pytest.mark.parametrize("text", ["", "many", "1/", "1/5M", "1/PT", "1/PT0S", "-1"])
def test_what_is_no_rate_refuses_the_start(text):
    """
    A guard that never trips is worse than none.
    """
    with pytest.raises(SettingsError, match="error_rate_any"):
        parse_rate(text, "error_rate_any")


def test_a_guard_trips_when_its_bucket_is_empty(tmp_path):
    """
    And stays so until the server is started again.
    """
    clock = FakeClock()
    rates = ErrorRates({"wlm": "2/PT10S", "any": ""}, tmp_path, clock)
    rates.note("wlm")
    rates.note("server")
    rates.note("wlm")
    assert not rates.has_tripped()
    clock.advance(10)
    rates.note("wlm")
    rates.note("wlm")
    assert not rates.has_tripped()

    rates.note("wlm")

    assert rates.has_tripped()
    clock.advance(1000)
    assert ErrorRates({"wlm": "2"}, tmp_path, clock).has_tripped()
    clear_mark(tmp_path)
    assert not rates.has_tripped()


def test_every_failure_counts_for_any(tmp_path):
    """
    "Failures consult their own bucket then any".
    """
    rates = ErrorRates({"wlm": "9", "any": "2"}, tmp_path, FakeClock())
    for kind in ("wlm", "server", "wlm"):
        rates.note(kind)

    assert rates.has_tripped()


def test_without_rates_nothing_is_watched(tmp_path):
    """
    The default.
    """
    rates = ErrorRates({"any": ""}, tmp_path, FakeClock())

    assert not rates.is_watching
    assert not rates.has_tripped()
