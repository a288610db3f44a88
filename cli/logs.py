"""`stoker logs`: the end of the server's log, or of a model's."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stoker.cli.log_files import Follower, last_lines, model_logs, server_log
from stoker.cli.parsers import Subparsers
from stoker.errors import InvalidParameter
from stoker.exit_codes import ExitCode
from stoker.settings.load import load

FOLLOW_INTERVAL_S: Final = 0.25


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "logs",
        help="show the server's log, or what a model's workers print",
        description="Show the end of the log that `stoker start` writes, or of a model's.",
        usage="stoker logs [-f] [-n LINES] [--model NAME] [--config FILE] [--SETTING VALUE]...",
        allow_abbrev=False,
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on showing new lines")
    parser.add_argument("-n", "--lines", type=int, default=50, help="how many lines [50]")
    parser.add_argument("-m", "--model", metavar="NAME", help="what the workers of a model print")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings_argv: Sequence[str]) -> ExitCode:
    settings = load(settings_argv, os.environ)
    if options.model is None:
        paths = [server_log(settings)]
        hint = "under systemd: journalctl -u stoker-supervisor -u stoker-frontend"
    else:
        try:
            paths = model_logs(settings, options.model)
        except InvalidParameter as error:
            print(f"stoker: {error.message}", file=sys.stderr)
            return ExitCode.USAGE
        hint = "is it registered?"
    paths = [path for path in paths if path.exists()]
    if not paths:
        what = f"model {options.model}" if options.model else "the server"
        print(f"There is no log of {what} in {settings.log_dir}; {hint}", file=sys.stderr)
        return ExitCode.NOT_RUNNING
    followers = [Follower(path) for path in paths] if options.follow else []
    for path in paths:
        if len(paths) > 1:
            print(f"==> {path.name} <==")
        for line in last_lines(path, options.lines):
            print(line)
    sys.stdout.flush()
    if followers:
        _follow(followers, paths)
    return ExitCode.OK


def _follow(followers: list[Follower], paths: list[Path]) -> None:
    """Until Ctrl-C, or until nobody reads."""
    shown = paths[-1]
    while True:
        for follower, path in zip(followers, paths, strict=True):
            for piece in follower.read_nowait():
                if path != shown:
                    sys.stdout.buffer.write(f"==> {path.name} <==\n".encode())
                    shown = path
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        time.sleep(FOLLOW_INTERVAL_S)
