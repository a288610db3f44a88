"""A peer's command line on stoker: its own grammar, and settings of ours beside it.

Messages go to standard output, and whatever fails ends with 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from stoker.errors import SettingsError
from stoker.exit_codes import ExitCode
from stoker.properties import Property, read_properties
from stoker.settings.flags import split_flags

MAX_FILE_BYTES: Final = 1 << 20

#: A peer's options, and the words that are settings of ours.
Parsed = tuple[argparse.Namespace, list[str]]


class Translated(NamedTuple):
    """Flags for `stoker serve`, and what a person should be told."""

    argv: list[str]
    notes: list[str]


def carry_out(
    name: str,
    argv: Sequence[str],
    parse: Callable[[Sequence[str], str], Parsed],
    run: Callable[[argparse.Namespace, list[str]], int],
) -> int:
    """The whole of `stoker NAME ...`; returns the exit code."""
    try:
        options, rest = parse(argv, f"stoker {name}")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else ExitCode.FAILURE
    try:
        return run(options, rest)
    except SettingsError as error:
        print(_as_peer_says(error))
    except OSError as error:
        print(f"stoker: {error}")
    return ExitCode.FAILURE


def _as_peer_says(error: SettingsError) -> str:
    """Files and folders that are not there have texts of their own."""
    is_plain = " not found: " in error.message or error.details.get("setting") == "TMPDIR"
    return error.message if is_plain else f"Invalid configuration: {error.message}"


def parse_with(grammar: argparse.ArgumentParser, argv: Sequence[str]) -> Parsed:
    """The options, and what is left: settings of ours, checked to be some.

    Raises:
        SystemExit: 2 with the usage, as the peers; 0 after --help.
    """
    options, rest = grammar.parse_known_args(argv)
    try:
        split_flags(rest)
    except SettingsError as error:
        grammar.error(f"unrecognized arguments: {' '.join(rest)} ({error.message})")
    return options, rest


def flag(setting: str) -> str:
    return "--" + setting.replace("_", "-")


def read_file(path: Path, environ: Mapping[str, str]) -> list[Property]:
    """A peer's config.properties.

    Raises:
        SettingsError: It is none; `line` says where.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return read_properties(file.read(MAX_FILE_BYTES), environ)
