"""`stoker`: one command, one verb or noun per file."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Final

from stoker.errors import SettingsError
from stoker.exit_codes import ExitCode

#: The modules of the commands, in the order in which help names them.  Only the one that is
#: asked for is imported: `serve` lives for months, and what it holds its children share.
_COMMANDS: Final = {
    "serve": "serve",
    "start": "start",
    "stop": "stop",
    "status": "status",
    "logs": "logs",
    "config": "config",
    "snapshot": "snapshot",
    "torchserve": "torchserve",
    "mms": "mms",
    "mms-archiver": "mms_archiver",
    "djl-serving": "djl_serving",
    "doctor": "doctor.command",
    "workflow": "workflow",
    "version": "version",
}
#: The peer's grammar, messages and exit codes, none of ours.
_PEERS: Final = ("torchserve", "mms", "mms-archiver", "djl-serving")
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


def build_parser(names: Iterable[str] = _COMMANDS) -> argparse.ArgumentParser:
    """The grammar of these commands."""
    parser = argparse.ArgumentParser(
        prog="stoker",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-v", "--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name in names:
        _command(name).add_parser(commands)
    return parser


def _command(name: str) -> ModuleType:
    return importlib.import_module(f"stoker.cli.{_COMMANDS[name]}")


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of the `stoker` script; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    asked = words[0] if words else ""
    if asked in _PEERS:
        return int(_command(asked).main(words[1:]))
    # Of anything else than a command the whole grammar tells what is wrong.
    parser = build_parser([asked] if asked in _COMMANDS else _COMMANDS)
    try:
        options, settings_argv = parser.parse_known_args(words)
    except SystemExit as error:
        # argparse says 2; the rest of stoker says 64 for a bad command line.
        return ExitCode.OK if error.code in (0, None) else ExitCode.USAGE
    if options.version:
        return int(_command("version").run(options, []))
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
