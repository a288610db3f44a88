"""`stoker mms`: Multi Model Server's launcher, so that its start scripts need one alias.

Messages go to standard output and failures end with 1, as there.  What is
better on purpose is in `peer_start.py`.

Source: contracts/mms.md 8.2.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import Final

from stoker.cli.mms_flags import environment, parse, settings_argv
from stoker.cli.model_server_pid import ModelServerPid
from stoker.cli.parsers import Subparsers
from stoker.cli.peer_command import carry_out
from stoker.cli.peer_start import serve_here, start_in_background, stop_server
from stoker.cli.serve import make_folders
from stoker.exit_codes import ExitCode

NAME: Final = "mms"
_ALREADY: Final = (
    "Model server is already running, please use multi-model-server --stop to stop MMS."
)
_REMOTE: Final = re.compile(r"https?://", re.IGNORECASE)


def add_parser(commands: Subparsers) -> None:
    """For the list of commands; `main` below reads the command line."""
    commands.add_parser(
        NAME, help="Multi Model Server's own command line: --start, --stop, ...", add_help=False
    )


def main(argv: Sequence[str]) -> int:
    """The whole of `stoker mms ...`; returns the exit code."""
    return carry_out(NAME, argv, parse, _run)


def _run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    return _stop() if options.stop else _start(options, rest)


def _start(options: argparse.Namespace, rest: Sequence[str]) -> int:
    from stoker.settings.load import check_folders, load_with_origins

    pid_file = ModelServerPid()
    if pid_file.find() is not None:
        print(_ALREADY)
        return ExitCode.FAILURE
    if pid_file.path.exists():
        print("Removing orphan pid file.")
        pid_file.remove()
    if options.log_config is not None and not os.path.isfile(options.log_config):
        print(f"--log-config file not found: {options.log_config}")
        return ExitCode.FAILURE
    if options.model_store is not None and not os.path.isdir(options.model_store):
        print(f"--model-store directory not found: {options.model_store}")
        return ExitCode.FAILURE
    translated = settings_argv(options, rest, os.environ)
    environ = environment(os.environ)
    settings = load_with_origins(translated.argv, environ).settings
    if settings.model_store is None and _names_local_models(options.models or ()):
        print("--model-store is required to load model locally.")
        return ExitCode.FAILURE
    check_folders(settings)
    make_folders(settings)
    for note in translated.notes:
        print(f"stoker: {note}")
    if options.foreground:
        return serve_here(translated.argv, environ, pid_file)
    return start_in_background(translated.argv, environ, pid_file, settings, "MMS")


def _names_local_models(models: Sequence[str]) -> bool:
    return any(not _REMOTE.match(item.partition("=")[2] or item) for item in models)


def _stop() -> int:
    pid_file = ModelServerPid()
    return stop_server(
        pid_file,
        pid_file.find(),
        name="Model server",
        stopped="Model server stopped.",
        was_gone="Model server already stopped.",
    )
