"""`stoker version`."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence

from stoker import __version__
from stoker.cli.parsers import Subparsers
from stoker.exit_codes import ExitCode


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser("version", help="print the version and exit")
    parser.set_defaults(run=run)


def run(_options: argparse.Namespace, _settings_argv: Sequence[str]) -> ExitCode:
    print(f"stoker {__version__} (Python {platform.python_version()})")
    return ExitCode.OK
