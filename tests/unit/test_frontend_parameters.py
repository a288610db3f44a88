"""Reading parameters: contracts/torchserve.md 1.2 and contracts/README.md, last row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.errors import InvalidBody, InvalidParameter
from stoker.frontend.parameters import parse_json_object, parse_query, read_parameters
from stoker.frontend.routes import Parameter

COUNT = Parameter("count", "integer", "", default=7, minimum=0)
SWITCH = Parameter("switch", "boolean", "", default=False)
TEXT = Parameter("text", "string", "")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {}),
        ("a=1&a=2", {"a": "1"}),
        ("a=1;b=2", {"a": "1", "b": "2"}),
        ("a=x+y%20z&b&=c&&", {"a": "x y z", "b": "", "": "c"}),
        ("a=b=c", {"a": "b=c"}),
    ],
)
def test_query_is_split_as_old_clients_are_used_to(query, found):
    """
    `;` separates too, and the first of equal names wins.
    """
    assert parse_query(query) == found


def test_query_of_absurd_length_is_refused():
    """
    Every parser has a limit.
    """
    with pytest.raises(InvalidParameter):
        parse_query("a&" * 300)


@given(st.text(max_size=60))
def test_any_query_is_read_or_refused(query):
    """
    Strangers write these.
    """
    found = parse_query(query)

    read_parameters((COUNT, SWITCH, TEXT), found, is_strict=False)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_any_json_value_is_read_or_said_to_be_misunderstood(value):
    """
    A JSON body can hold anything under our names.
    """
    given_values = dict.fromkeys(("count", "switch", "text"), value)

    values, _ = read_parameters((COUNT, SWITCH, TEXT), given_values, is_strict=False)

    assert isinstance(values["count"], int)
    assert values["count"] >= 0
    assert isinstance(values["switch"], bool)
    assert values["text"] is None or isinstance(values["text"], str)


@pytest.mark.parametrize(
    ("raw", "value", "is_understood"),
    [
        ("0", 0, True),
        ("+3", 3, True),
        (5.0, 5, True),
        ("-1", 7, False),
        ("", 7, False),
        ("1.5", 7, False),
        ("1_0", 7, False),
        ("\u0661", 7, False),
        (str(2**31), 7, False),
        ("9" * 5000, 7, False),
        (True, 7, False),
    ],
)
def test_integer_that_does_not_parse_becomes_the_default(raw, value, is_understood):
    """
    The peer's integers have 32 bits and ASCII digits.
    """
    values, warnings = read_parameters((COUNT,), {"count": raw}, is_strict=False)

    assert values == {"count": value}
    assert (warnings == []) is is_understood


@pytest.mark.parametrize(
    ("raw", "value", "is_understood"),
    [("TRUE", True, True), (True, True, True), ("false", False, True), ("1", False, False)],
)
def test_only_the_text_true_is_true(raw, value, is_understood):
    """
    `1`, `yes` and `on` are false in the peer; we say that we took them so.
    """
    values, warnings = read_parameters((SWITCH,), {"switch": raw}, is_strict=False)

    assert values == {"switch": value}
    assert (warnings == []) is is_understood


def test_warning_cannot_break_a_header():
    """
    The value comes back in `x-stoker-warning`.
    """
    _, (warning,) = read_parameters((COUNT,), {"count": "a\r\nb: c\u2028é"}, is_strict=False)

    assert warning == "count='a\\r\\nb: c\\u2028\\xe9' is not understood, using 7"


def test_strict_refuses_instead_of_guessing():
    """
    `strict_parameters`.
    """
    with pytest.raises(InvalidParameter) as refused:
        read_parameters((COUNT,), {"count": "x"}, is_strict=True)

    assert refused.value.details == {"parameter": "count", "kind": "integer", "value": "x"}


@given(st.binary(max_size=40))
def test_any_body_is_an_object_or_refused(body):
    """
    Never a traceback for a stranger's bytes.
    """
    try:
        found = parse_json_object(body)
    except InvalidBody:
        return

    assert isinstance(found, dict)


def test_null_in_json_means_absent():
    """
    Clients in typed languages send every field.
    """
    assert parse_json_object(b'{"a": null, "b": 1}') == {"b": 1}
