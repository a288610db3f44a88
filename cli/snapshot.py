"""`stoker snapshot`: a running server's settings and models, as a file TorchServe can read."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stoker.cli.parsers import Subparsers
from stoker.errors import SettingsError, StokerError
from stoker.exit_codes import ExitCode
from stoker.settings.load import load

TIMEOUT_S: Final = 10.0


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "snapshot",
        help="write a running server's settings and models as a TorchServe snapshot",
        description="Write the settings and models of the server that runs in runtime_dir as a "
        "snapshot file, which `stoker serve --config FILE` and TorchServe's --ts-config start "
        "from.  It goes to `config` in log_dir, and its name is printed.",
        usage="stoker snapshot [--output FILE] [--config FILE] [--SETTING VALUE]...",
        allow_abbrev=False,
    )
    parser.add_argument("--output", metavar="FILE", help="write it there instead; - to print it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings_argv: Sequence[str]) -> ExitCode:
    # For this command alone, and every command imports this file.
    from stoker.wire.asking import ask

    runtime_dir = load(settings_argv, os.environ).runtime_dir
    try:
        said = ask(runtime_dir, "snapshot", {"keep": options.output is None}, TIMEOUT_S)
    except SettingsError:
        raise  # as for every command: `main` says it
    except StokerError as error:
        print(f"stoker: {error.message}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    for version in said["left_out"]:
        print(f"left out, it has no archive: {version}", file=sys.stderr)
    if options.output is None:
        print(said["path"])
    elif options.output == "-":
        print(said["text"].decode(), end="")
    else:
        Path(options.output).write_bytes(said["text"])
    return ExitCode.OK
