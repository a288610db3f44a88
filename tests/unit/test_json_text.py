"""The worker's JSON is the standard library's, byte for byte."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.worker.contracts.json_text import indented

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.floats(), max_size=4)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.booleans(), inner, max_size=4)
    ),
    max_leaves=20,
)


class Colour(enum.IntEnum):
    RED = 1


@given(VALUES)
def test_every_value_has_the_text_of_the_standard_library(value):
    """
    Clients of the peer compare answers as text (contract 2.6).
    """
    assert indented(value) == json.dumps(value, indent=2)


@pytest.mark.parametrize(
    "value", [OrderedDict(a=[]), Colour.RED, [Colour.RED], {Colour.RED: 1}, {None: 1.5}, "\ud800"]
)
def test_subclasses_and_odd_keys_too(value):
    assert indented(value) == json.dumps(value, indent=2)


def test_deep_values_too():
    value: list = []
    for _ in range(100):
        value = [value]

    assert indented(value) == json.dumps(value, indent=2)


def test_what_has_no_json_is_refused():
    cycle: list = []
    cycle.append(cycle)

    for value in (object(), {"a": {1, 2}}, {(1, 2): 3}, cycle, b"bytes"):
        with pytest.raises((TypeError, ValueError)):
            indented(value)
