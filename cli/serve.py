"""`stoker serve`: the launcher in the foreground."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from stoker.cli.parsers import Subparsers, settings_help
from stoker.errors import SettingsError
from stoker.exit_codes import ExitCode
from stoker.pickle_fence import raise_fence
from stoker.settings import Settings
from stoker.settings.load import check_folders, load_with_origins


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "serve",
        help="serve in the foreground until SIGTERM or Ctrl-C",
        description="Start the supervisor and the frontend, restart either if it dies, and stop "
        "both in order on SIGTERM or Ctrl-C.  A second Ctrl-C does not wait for requests in hand.",
        epilog=settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="stoker serve [--config FILE] [--SETTING VALUE]...",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)


def run(_options: argparse.Namespace, settings_argv: Sequence[str]) -> ExitCode:
    from setproctitle import setproctitle

    from stoker import logs
    from stoker.cli.launcher import Launcher
    from stoker.cli.program import Program

    # The supervisor and the frontend are forked from this process.
    raise_fence()
    leave_unsafe_path()
    loaded = load_with_origins(settings_argv, os.environ)
    settings = loaded.settings
    check_folders(settings)
    make_folders(settings)
    logs.configure(settings, "launcher")
    setproctitle("stoker: launcher")
    return Launcher(
        settings,
        Program("stoker.supervisor.__main__", loaded),
        Program("stoker.frontend.__main__", loaded),
        os.environ,
    ).run()


def command(module: str, argv: Sequence[str]) -> list[str]:
    """Run one of our programs with this interpreter.

    `-P` keeps the working directory off the path: a `worker.py` that lies
    there must not become ours, nor ours hide it.
    """
    return [sys.executable, "-P", "-m", module, *argv]


def leave_unsafe_path() -> None:
    """What `-P` is for, where the interpreter was started without it."""
    if not sys.flags.safe_path:
        del sys.path[0]


def make_folders(settings: Settings) -> None:
    """The runtime folder, closed to others; it holds the sockets and the pid file."""
    from stoker.wire.runtime_dir import prepare_folder

    try:
        prepare_folder(settings.runtime_dir, may_be_passed=bool(settings.worker_user))
    except OSError as error:
        raise SettingsError(
            f"runtime_dir {settings.runtime_dir} cannot be used: {error.strerror}",
            setting="runtime_dir",
        ) from None
