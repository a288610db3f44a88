"""Java's .properties format (contract 9.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.errors import SettingsError
from stoker.properties import read_properties, write_properties


def read(content: bytes, **environ: str) -> dict[str, str]:
    return {entry.key: entry.value for entry in read_properties(content, environ)}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a=1", {"a": "1"}),
        (b"a:1", {"a": "1"}),
        (b"a 1", {"a": "1"}),
        (b"  a \t=  1 2 ", {"a": "1 2 "}),
        (b"a = = 1", {"a": "= 1"}),
        (b"a", {"a": ""}),
        (b"a=", {"a": ""}),
        (b"=x", {"": "x"}),
        (b"# a=1\n! b=2\n  # c=3\n\n \t\nd=4", {"d": "4"}),
        (b"a=1 # not a comment", {"a": "1 # not a comment"}),
        (b"a=1\r\nb=2\rc=3", {"a": "1", "b": "2", "c": "3"}),
        (b"a=one, \\\n    two, \\\n\ttwo and a half", {"a": "one, two, two and a half"}),
        (b"a=1\\\\\nb=2", {"a": "1\\", "b": "2"}),
        (b"a=1\\\n# still the value", {"a": "1# still the value"}),
        (b"a=end\\", {"a": "end"}),
        (b"a\\ b\\:c\\=d=1", {"a b:c=d": "1"}),
        (b"a=\\t\\n\\r\\f\\\\\\q\\:", {"a": "\t\n\r\f\\q:"}),
        (b"a=\\u0041\\u00e9", {"a": "A\u00e9"}),
        (b"a=\\ud83d\\ude00", {"a": "\U0001f600"}),
        (b"a=caf\xe9", {"a": "caf\u00e9"}),
        (b"a=1\na=2", {"a": "2"}),
        (b"", {}),
    ],
)
def test_files_are_read_as_java_reads_them(content, expected):
    """
    Snapshots and real configurations of the peer rely on every one of these.
    """
    assert expected == read(content)


def test_every_entry_knows_the_line_where_it_begins():
    """
    A refusal must name the line.
    """
    content = b"# one\na=1\nb=x\\\n  y\\\n  z\n\nc=3"

    assert [(entry.key, entry.line) for entry in read_properties(content, {})] == [
        ("a", 2),
        ("b", 3),
        ("c", 7),
    ]


def test_variables_are_filled_in():
    """
    The SageMaker profile of the peer is built on them.
    """
    content = b"a=http://0.0.0.0:$$PORT$$/$$X$$"

    assert read(content, PORT="8080", X="y") == {"a": "http://0.0.0.0:8080/y"}


def test_an_unset_variable_refuses_with_its_line():
    """
    The peer's text; an empty value would be a silent mistake.
    """
    with pytest.raises(SettingsError) as caught:
        read(b"\na=$$NOPE$$")

    assert caught.value.message == "Invalid Environment Variable NOPE"
    assert caught.value.details["line"] == 2


def test_a_broken_unicode_escape_refuses():
    """
    As Java does; guessing would change a value unseen.
    """
    with pytest.raises(SettingsError) as caught:
        read(b"a=\\u00g0")

    assert caught.value.details["line"] == 1


@given(st.binary(max_size=300))
def test_no_input_breaks_the_reader(content):
    """
    A damaged file is refused or read, never a crash.
    """
    try:
        entries = read_properties(content, {})
    except SettingsError:
        return

    assert all(entry.line >= 1 for entry in entries)


_ESCAPED = str.maketrans(
    {c: f"\\{c}" for c in "\\:=#! "} | {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}
)
_LATIN = st.text(st.characters(max_codepoint=255), max_size=20)


@given(
    st.dictionaries(_LATIN.filter(bool), _LATIN.filter(lambda text: "$$" not in text), max_size=5)
)
def test_what_java_would_write_is_read_back(pairs):
    """
    Round trip over escapes, with no escape forgotten.
    """
    lines = [
        f"{key.translate(_ESCAPED)}={value.translate(_ESCAPED)}" for key, value in pairs.items()
    ]

    assert pairs == read("\n".join(lines).encode("latin-1"))


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20), st.text(max_size=20).filter(lambda t: "$$" not in t)
    ),
    st.text(max_size=30),
)
def test_what_we_write_is_read_back(pairs, comment):
    """
    In ASCII, whatever stands in a value, and no comment becomes an entry.
    """
    written = write_properties(pairs.items(), comment)

    assert written.isascii()
    assert pairs == read(written.encode())


def test_a_snapshot_is_written_as_java_does():
    """
    The bytes that TorchServe's own files show.
    """
    written = write_properties(
        [
            ("inference_address", "http://127.0.0.1:8080"),
            ("a b", ' x y#"é😀"'),
            ("json", '{\n  "a": 1}'),
        ]
    )

    assert written == (
        "inference_address=http\\://127.0.0.1\\:8080\n"
        'a\\ b=\\ x y\\#"\\u00E9\\uD83D\\uDE00"\n'
        'json={\\n  "a"\\: 1}\n'
    )
