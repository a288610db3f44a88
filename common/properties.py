r"""Reading and writing Java `.properties` files.

    # comment            ! comment
    key=value            key:value            key value
    long = first \
           second        -> "first second" (leading blanks of a continuation go)
    path = C\:\\models   -> "C:\models"      \t \n \r \f \uXXXX; any other \x is x

Text is Latin-1 whatever the locale says.  `$$NAME$$` inside a value is the
environment variable NAME.  Source: contracts/torchserve.md 9.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from stoker.errors import SettingsError

_BLANKS: Final = " \t\f"
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_ESCAPED: Final = {char: "\\" + letter for letter, char in _ESCAPES.items()}
_VARIABLE: Final = re.compile(r"\$\$([^$]+)\$\$")


class Property(NamedTuple):
    """One entry; `line` is where it begins, counted from 1."""

    key: str
    value: str
    line: int


def read_properties(content: bytes, environ: Mapping[str, str]) -> list[Property]:
    """All entries in file order, variables filled in; a later one of the same key wins."""
    entries = []
    for text, line in _logical_lines(content.decode("latin-1")):
        raw_key, raw_value = _split(text)
        value = _fill(_unescape(raw_value, line), environ, line)
        entries.append(Property(_unescape(raw_key, line), value, line))
    return entries


def write_properties(entries: Iterable[tuple[str, str]], comment: str = "") -> str:
    """A file that reads as these entries, whoever reads it; plain ASCII."""
    plain = comment.encode("ascii", "backslashreplace").decode()
    lines = [f"# {line}" for line in plain.splitlines()]
    lines += [f"{_escape(key, is_key=True)}={_escape(value)}" for key, value in entries]
    return "\n".join(lines) + "\n"


def _escape(text: str, *, is_key: bool = False) -> str:
    """As Java does it: blanks only where they would be lost."""
    parts: list[str] = []
    for at, char in enumerate(text):
        if char in _ESCAPED:
            parts.append(_ESCAPED[char])
        elif char in "\\=:#!" or (char == " " and (is_key or at == 0)):
            parts.append("\\" + char)
        elif " " <= char <= "~":
            parts.append(char)
        else:
            # Java's chars are UTF-16: a character may take two escapes.
            pairs = char.encode("utf-16-be", "surrogatepass").hex()
            parts += [f"\\u{pairs[i : i + 4].upper()}" for i in range(0, len(pairs), 4)]
    return "".join(parts)


def _logical_lines(text: str) -> Iterator[tuple[str, int]]:
    """Lines without comments and blank ones, continuations joined."""
    pending: list[str] = []
    first = 0
    for number, natural in enumerate(_LINE_END.split(text), start=1):
        line = natural.lstrip(_BLANKS)
        if not pending:
            if not line or line[0] in "#!":
                continue
            first = number
        if _is_continued(line):
            pending.append(line[:-1])
            continue
        yield "".join([*pending, line]), first
        pending = []
    if pending:
        yield "".join(pending), first


def _is_continued(line: str) -> bool:
    """An odd number of backslashes ends the line; an even number is backslashes."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _split(line: str) -> tuple[str, str]:
    """The key ends at the first blank, `=` or `:` that no backslash protects."""
    end = 0
    while end < len(line) and line[end] not in "=:" + _BLANKS:
        end += 2 if line[end] == "\\" else 1
    key, rest = line[:end], line[end:].lstrip(_BLANKS)
    if rest[:1] in ("=", ":"):
        rest = rest[1:].lstrip(_BLANKS)
    return key, rest


def _unescape(text: str, line: int) -> str:
    if "\\" not in text:
        return text
    parts: list[str] = []
    at = 0
    while at < len(text):
        if text[at] != "\\":
            parts.append(text[at])
            at += 1
            continue
        letter = text[at + 1 : at + 2]
        if letter == "u":
            digits = text[at + 2 : at + 6]
            if not re.fullmatch(r"[0-9a-fA-F]{4}", digits):
                raise SettingsError("Malformed \\uXXXX encoding.", line=line)
            parts.append(chr(int(digits, 16)))
            at += 6
            continue
        parts.append(_ESCAPES.get(letter, letter))
        at += 2
    # Java's chars are UTF-16: two escapes may make one character.
    return "".join(parts).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _fill(value: str, environ: Mapping[str, str], line: int) -> str:
    def variable(match: re.Match[str]) -> str:
        try:
            return environ[match[1]]
        except KeyError:
            raise SettingsError(f"Invalid Environment Variable {match[1]}", line=line) from None

    return _VARIABLE.sub(variable, value)
