r"""Regular expressions as TorchServe's configuration files write them: Java's.

Most of the two languages is the same.  What is spelled differently is
translated (`\Q...\E`, `\p{Alpha}`, `\z`, named groups); what Python would take
for something else (`[a-z&&[^x]]`, nested classes) or does not know is refused:
a pattern that silently meant something else could let strangers in.

As in Java, `\d`, `\w`, `\s` and ignored case are about ASCII.

Source: contracts/torchserve.md 3.2, 6.5, 9.3.
"""

from __future__ import annotations

import re
from typing import Final

#: Java's POSIX classes, as they stand inside brackets.
_CLASSES: Final = {
    "Lower": "a-z",
    "Upper": "A-Z",
    "ASCII": r"\x00-\x7f",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Alnum": "a-zA-Z0-9",
    "Punct": re.escape("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
    "Blank": r" \t",
    "XDigit": "0-9a-fA-F",
    "Space": r"\s",
}
_NAMED_CLASS: Final = re.compile(r"\\p\{(?:Is)?(\w+)\}")
_GROUP_NAME: Final = re.compile(r"\(\?<([a-zA-Z][a-zA-Z0-9]*)>")
_BACK_REFERENCE: Final = re.compile(r"\\k<([a-zA-Z][a-zA-Z0-9]*)>")


def compile_java(pattern: str, *, ignores_case: bool = False) -> re.Pattern[str]:
    """Raises re.error for what is no pattern, or none that we can read as Java would."""
    flags = re.ASCII | (re.IGNORECASE if ignores_case else re.NOFLAG)
    try:
        return re.compile(_translated(pattern), flags)
    except (RecursionError, OverflowError) as error:
        raise re.error(f"too complicated: {error}") from None


def _translated(pattern: str) -> str:
    done: list[str] = []
    at, is_class = 0, False
    while at < len(pattern):
        if pattern[at] == "\\":
            text, at = _escape(pattern, at, is_class)
        elif is_class:
            text, at, is_class = _in_class(pattern, at)
        elif pattern[at] == "[":
            text = "[^" if pattern.startswith("[^", at) else "["
            at, is_class = at + len(text), True
            if pattern.startswith("]", at):
                raise re.error("a class that begins with ] is read differently by Java; use \\]")
        elif name := _GROUP_NAME.match(pattern, at):
            text, at = f"(?P<{name[1]}>", name.end()
        else:
            text, at = pattern[at], at + 1
        done.append(text)
    return "".join(done)


def _escape(pattern: str, at: int, is_class: bool) -> tuple[str, int]:
    if pattern.startswith(r"\Q", at):
        end = pattern.find(r"\E", at)
        quoted = pattern[at + 2 : end if end >= 0 else len(pattern)]
        return re.escape(quoted), end + 2 if end >= 0 else len(pattern)
    if named := _NAMED_CLASS.match(pattern, at):
        if named[1] not in _CLASSES:
            raise re.error(f"the class {named[0]} is not supported")
        members = _CLASSES[named[1]]
        return (members if is_class else f"[{members}]"), named.end()
    if referred := _BACK_REFERENCE.match(pattern, at):
        return f"(?P={referred[1]})", referred.end()
    text = pattern[at : at + 2]
    if text == r"\z":
        text = r"\Z"
    elif text == r"\Z":
        text = r"(?=\n?\Z)"
    return text, at + 2


def _in_class(pattern: str, at: int) -> tuple[str, int, bool]:
    if pattern[at] == "[" or pattern.startswith("&&", at):
        raise re.error("classes within classes and && are not supported")
    return pattern[at], at + 1, pattern[at] != "]"
