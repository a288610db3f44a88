"""Forms that strangers send: read as ever, and never dear."""

from __future__ import annotations

import tracemalloc
from urllib.parse import parse_qsl, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.errors import InvalidBody
from stoker.frontend.forms import read_urlencoded
from stoker.frontend.limits import Limits

SIZE = 1_500_000


@given(st.lists(st.tuples(st.text(min_size=1, max_size=8), st.binary(max_size=12)), max_size=5))
def test_urlencoded_fields_arrive_as_they_were_sent(fields):
    """
    Any byte may be in a value; names are text.
    """
    body = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in fields)

    found = read_urlencoded(body.encode(), Limits())

    assert [(one.name, one.body) for one in found] == fields


@given(st.text("ab=&+\\x\n41%", max_size=30))
def test_urlencoded_is_read_as_the_standard_library_does(text):
    """
    Except that a `%` which escapes nothing is refused.
    """
    try:
        found = read_urlencoded(text.encode(), Limits())
    except InvalidBody:
        assert "%" in text
        return

    expected = parse_qsl(text, keep_blank_values=True)
    assert [(one.name, one.body.decode("utf-8", "replace")) for one in found] == expected


@pytest.mark.parametrize("unit", [b"%41", b"%", b"+", b"\\", b"=", b"\xff", b"%ff"])
def test_memory_for_a_urlencoded_form_is_a_few_times_its_size(unit):
    """
    An object for every escape would be eighty times.
    """
    body = b"a=" + unit * (SIZE // len(unit))
    tracemalloc.start()
    try:
        read_urlencoded(body, Limits())
    except InvalidBody:
        assert unit == b"%"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert peak < 8 * SIZE
