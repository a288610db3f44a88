"""`stoker torchserve`: the peer's launcher, so that its start scripts need one alias.

Messages go to standard output and failures end with 1, as there.  What is
better on purpose is in `peer_start.py`.

Source: contracts/torchserve.md 9.1.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stoker.cli.model_server_pid import ModelServerPid
from stoker.cli.parsers import Subparsers
from stoker.cli.peer_command import carry_out
from stoker.cli.peer_start import serve_here, start_in_background, stop_server
from stoker.cli.serve import make_folders
from stoker.cli.torchserve_flags import environment, parse, settings_argv
from stoker.errors import SettingsError
from stoker.exit_codes import ExitCode
from stoker.key_file import API, FILE_NAME, read_keys

NAME: Final = "torchserve"
#: The version whose contract we keep; what scripts parse.
PEER_VERSION: Final = "0.12.0"
_ALREADY: Final = "TorchServe is already running, please use torchserve --stop to stop TorchServe."


def add_parser(commands: Subparsers) -> None:
    """For the list of commands; `main` below reads the command line."""
    commands.add_parser(
        NAME, help="TorchServe's own command line: --start, --stop, ...", add_help=False
    )


def main(argv: Sequence[str]) -> int:
    """The whole of `stoker torchserve ...`; returns the exit code."""
    return carry_out(NAME, argv, parse, _run)


def _run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    if options.version:
        print(f"TorchServe Version is {PEER_VERSION}")
        return ExitCode.OK
    return _stop() if options.stop else _start(options, rest)


# -- start --------------------------------------------------------------------


def _start(options: argparse.Namespace, rest: Sequence[str]) -> int:
    from stoker.settings.load import check_folders, load_with_origins

    pid_file = ModelServerPid()
    if pid_file.find() is not None:
        print(_ALREADY)
        return ExitCode.FAILURE
    for flag, folder in (
        ("--model-store", options.model_store),
        ("--workflow-store", options.workflow_store),
    ):
        if folder is not None and not os.path.isdir(folder):
            print(f"{flag} directory not found: {folder}")
            return ExitCode.FAILURE
    argv = settings_argv(options, rest)
    environ = environment(os.environ)
    settings = load_with_origins(argv, environ).settings
    if settings.model_store is None:
        print("Missing mandatory parameter --model-store")
        return ExitCode.FAILURE
    check_folders(settings)
    make_folders(settings)
    if options.foreground:
        return serve_here(argv, environ, pid_file)
    return start_in_background(argv, environ, pid_file, settings, "TorchServe")


# -- stop ---------------------------------------------------------------------


def _forget_keys(path: Path) -> None:
    """As the peer does; but keys that an operator brought, without an end, stay."""
    try:
        keys = read_keys(path).keys
    except (OSError, SettingsError):
        return  # there are none, or they are not ours
    if any(key.expires_at is not None for name, key in keys.items() if name != API):
        path.unlink(missing_ok=True)


def _stop() -> int:
    pid_file = ModelServerPid()
    pid = pid_file.find()
    _forget_keys(Path(FILE_NAME))
    said = "TorchServe has stopped."
    return stop_server(pid_file, pid, name="TorchServe", stopped=said, was_gone=said)
