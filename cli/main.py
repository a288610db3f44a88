"""`stoker`: one command, one verb or noun per file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from stoker.cli import (
    config,
    djl_serving,
    logs,
    mms,
    mms_archiver,
    serve,
    snapshot,
    start,
    status,
    stop,
    torchserve,
    version,
    workflow,
)
from stoker.cli.doctor import command as doctor
from stoker.errors import SettingsError
from stoker.exit_codes import ExitCode

_COMMANDS: Final = (
    serve,
    start,
    stop,
    status,
    logs,
    config,
    snapshot,
    torchserve,
    mms,
    mms_archiver,
    djl_serving,
    doctor,
    workflow,
    version,
)
_DESCRIPTION: Final = "A model server for people who run their own machines."
_EPILOG: Final = """\
Every command takes every setting as a flag: --inference-address http://127.0.0.1:8080,
--model-store DIR, --config FILE, ...  `stoker serve --help` lists them; `stoker config`
shows what each is now and where that came from.

  stoker serve --model-store models       serve in this terminal until Ctrl-C
  stoker start --model-store models       the same in the background
  stoker logs -f                          watch it
  stoker stop                             answer what is in hand, then end
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stoker",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-v", "--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of the `stoker` script; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    for peer in (torchserve, mms, mms_archiver, djl_serving):
        if words[:1] == [peer.NAME]:
            # The peer's grammar, messages and exit codes, none of ours.
            return int(peer.main(words[1:]))
    parser = build_parser()
    try:
        options, settings_argv = parser.parse_known_args(words)
    except SystemExit as error:
        # argparse says 2; the rest of stoker says 64 for a bad command line.
        return ExitCode.OK if error.code in (0, None) else ExitCode.USAGE
    if options.version:
        return version.run(options, [])
    if options.command is None:
        parser.print_help(sys.stderr)
        return ExitCode.USAGE
    try:
        return int(options.run(options, settings_argv))
    except SettingsError as error:
        print(f"stoker: {error.message}", file=sys.stderr)
        return ExitCode.CONFIG
    except BrokenPipeError:
        # The reader of our output left (`stoker logs | head`); say nothing more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitCode.OK
    except OSError as error:
        print(f"stoker: {error}", file=sys.stderr)
        return ExitCode.SYSTEM
    except KeyboardInterrupt:
        return 128 + 2


if __name__ == "__main__":
    sys.exit(main())
