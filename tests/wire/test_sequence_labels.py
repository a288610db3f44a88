"""What a request says of its sequence, in headers."""

from __future__ import annotations

import pytest

from stoker.wire.sequence_labels import DEFAULT_HEADERS, made_name, read_label


def test_supervisor_and_worker_make_the_same_name():
    """
    Nobody tells the other; the same request said again has the same one.
    """
    label = read_label(DEFAULT_HEADERS, b"f" * 16, ["Accept", "x"])

    assert label.is_made
    assert label.is_start
    assert label == read_label(DEFAULT_HEADERS, b"f" * 16, [])
    assert label.name is not None
    assert label.name.startswith("ts-seq-")
    assert label.name != made_name(b"g" * 16)


def test_header_names_ignore_case_but_not_underscores():
    """
    2.5: clients send them with underscores.
    """
    texts = ["TS_Request_Sequence_ID", "x", "ts-request-sequence-end", "true"]

    label = read_label(DEFAULT_HEADERS, b"f" * 16, texts)

    assert label == ("x", False, False, False)


@pytest.mark.parametrize(
    ("value", "is_end"), [("true", True), ("1", True), ("false", False), ("", False)]
)
def test_a_flag_may_be_said_not_to_hold(value, is_end):
    """
    Some clients always send all three.
    """
    texts = [DEFAULT_HEADERS.name, "x", DEFAULT_HEADERS.end, value]

    assert read_label(DEFAULT_HEADERS, b"f" * 16, texts).is_end is is_end
