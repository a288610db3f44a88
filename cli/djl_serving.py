"""`stoker djl-serving`: the peer's launcher, so that its start scripts need one alias.

It stays in the foreground, as there.  Messages go to standard output and
failures end with 1.

Source: contracts/djl-serving.md 12.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Final

from stoker.cli.djl_flags import environment, parse, settings_argv
from stoker.cli.parsers import Subparsers
from stoker.cli.peer_command import carry_out
from stoker.exit_codes import ExitCode

NAME: Final = "djl-serving"


def add_parser(commands: Subparsers) -> None:
    """For the list of commands; `main` below reads the command line."""
    commands.add_parser(NAME, help="DJL Serving's own command line: -f, -m, -s", add_help=False)


def main(argv: Sequence[str]) -> int:
    """The whole of `stoker djl-serving ...`; returns the exit code."""
    return carry_out(NAME, argv, parse, _run)


def _run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    if options.install:
        print("-i installs Java engines, which stoker does without: " + " ".join(options.install))
        return ExitCode.FAILURE
    found = settings_argv(options, rest, os.environ)
    for note in found.notes:
        print(f"stoker: {note}")
    return _serve(found.argv, environment(os.environ))


def _serve(argv: Sequence[str], environ: dict[str, str]) -> int:
    from stoker.cli import serve
    from stoker.cli.serve import make_folders
    from stoker.settings.load import check_folders, load_with_origins

    settings = load_with_origins(argv, environ).settings
    check_folders(settings)
    make_folders(settings)
    os.environ.clear()
    os.environ.update(environ)
    status = serve.run(argparse.Namespace(), argv)
    return ExitCode.FAILURE if status else ExitCode.OK
