"""Patterns from TorchServe's configuration files mean what they meant there."""

from __future__ import annotations

import re

import pytest

from stoker.java_regex import compile_java


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"https://models\.example/.*", "https://models.example/a.mar", True),
        (r"https://models\.example/.*", "https://modelsXexample/a.mar", False),
        (r"\Qhttps://a.b/?x=\E.*", "https://a.b/?x=1", True),
        (r"\Qhttps://a.b/\E.*", "https://aXb/1", False),
        (r"a\Q.*", "a.*", True),
        (r"\p{Alpha}+\p{Digit}", "abc1", True),
        (r"[\p{Alnum}_-]+", "a-b_1", True),
        (r"[\p{Alnum}]+", "a-b", False),
        (r"(?<x>a|b)\k<x>", "bb", True),
        (r"(?<x>a|b)\k<x>", "ba", False),
        (r"http(s)?://.*|file://.*", "file:///x", True),
        (r"a*+b", "aaab", True),
        (r"\d", "\u0663", False),
        (r"[^/]+\z", "abc", True),
        (r"[\]\[]", "]", True),
        (r"(?i)ABC", "abc", True),
    ],
)
def test_a_pattern_is_read_as_java_reads_it(pattern, text, expected):
    """The whole text must match, as everywhere in the peer."""
    assert bool(compile_java(pattern).fullmatch(text)) == expected


@pytest.mark.parametrize(
    "pattern",
    ["[a-z&&[^x]]", "[a[b]]", "[]a]", r"\p{IsGreek}", "(", "a**", "[a", r"\P{Alpha}", "(?<1>a)"],
)
def test_what_would_mean_something_else_is_refused(pattern):
    """Better no start than a list that admits what it should not."""
    with pytest.raises(re.error):
        compile_java(pattern)


def test_case_is_ignored_for_ascii_alone():
    """As Java does unless told otherwise; U+212A is a Kelvin sign that folds to k."""
    pattern = compile_java("k", ignores_case=True)

    assert pattern.fullmatch("K")
    assert not pattern.fullmatch("\u212a")
