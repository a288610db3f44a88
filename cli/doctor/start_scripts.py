"""Command lines that start TorchServe, found in scripts, unit files and container recipes.

Whatever holds the word `torchserve` followed by flags counts; variables in it
are left as they are.  Nothing is executed.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from stoker.cli.doctor.findings import Finding, Severity
from stoker.cli.torchserve_flags import parser

MAX_FILES: Final = 64
MAX_FILE_BYTES: Final = 256 * 1024
_NAMES: Final = re.compile(
    r".*\.(sh|bash|service|ya?ml)|(Docker|Container)file.*|docker-entrypoint.*|.*entrypoint.*|"
    r"start.*|run.*|serve.*",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"(?:^|[\s=/('])torchserve(?=\s)")
#: What ends a command, for a shell; a redirection is as good as an end.
_ENDS: Final = re.compile(r"\d?[<>]|[;&|]")


@dataclass(frozen=True, slots=True)
class StartCommand:
    """One command line, and where it stands."""

    file: str
    line: int
    words: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


def find_commands(root: Path) -> list[StartCommand]:
    """In files that look like start scripts, directly in a folder or one below."""
    found: list[StartCommand] = []
    for path in _candidates(root):
        try:
            with path.open("rb") as file:
                text = file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
        except OSError:
            continue
        name = str(path.relative_to(root))
        found += [StartCommand(name, line, words) for line, words in _commands(text)]
    return found


def _candidates(root: Path) -> Iterator[Path]:
    left = MAX_FILES
    for pattern in ("*", "*/*"):
        for path in sorted(root.glob(pattern)):
            if left and _NAMES.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                left -= 1
                yield path


def _commands(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    pending = ""
    begin = 0
    for number, line in enumerate(text.splitlines(), start=1):
        begin = begin if pending else number
        if line.rstrip().endswith("\\"):
            pending += line.rstrip()[:-1] + " "
            continue
        whole, pending = pending + line, ""
        if "torchserve" in whole and not whole.lstrip().startswith("#"):
            words = _words(whole)
            if words is not None:
                yield begin, words


def _words(line: str) -> tuple[str, ...] | None:
    """What follows the word `torchserve`; None where it is not a command."""
    if re.search(r"""["']torchserve["']\s*,""", line):  # a list, as in a Dockerfile
        line = re.sub(r'[\[\],"]', " ", line)
    commands = (_ENDS.split(line[match.end() :], maxsplit=1)[0] for match in _WORD.finditer(line))
    command = next((each.strip() for each in commands if each.lstrip().startswith("-")), None)
    if command is None:
        return None
    try:
        return tuple(shlex.split(command, comments=True))
    except ValueError:
        return tuple(command.split())


class _Refused(Exception):
    pass


def judge(command: StartCommand) -> tuple[argparse.Namespace | None, list[Finding]]:
    """What a command line means here; None when it would end with the usage."""
    grammar = parser("torchserve")

    def refuse(message: str) -> NoReturn:
        raise _Refused(message)

    grammar.error = refuse  # type: ignore[method-assign]
    words = [word for word in command.words if word not in ("-h", "--help")]
    try:
        options, rest = grammar.parse_known_args(words)
    except _Refused as error:
        return None, [Finding(Severity.FAILS, command.where, f"the command line: {error}")]
    findings = [
        Finding(Severity.FAILS, command.where, f"{flag} is not a flag of TorchServe 0.12")
        for flag in rest
        if flag.startswith("-")
    ]
    if options.plugins_path:
        findings.append(
            Finding(Severity.DIFFERS, command.where, "--plugins-path: Java plugins do not load")
        )
    if options.cpp_log_config:
        findings.append(Finding(Severity.NOTE, command.where, "--cpp-log-config: without effect"))
    if not findings:
        findings.append(Finding(Severity.WORKS, command.where, f"torchserve {' '.join(words)}"))
    return options, findings
