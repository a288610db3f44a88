"""`stoker start`: `stoker serve` in the background, once it is known to work."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stoker.cli.background import spawn, wait_ready
from stoker.cli.launcher import STARTED_LINE
from stoker.cli.log_files import last_lines, server_log
from stoker.cli.notify_socket import NotifySocket
from stoker.cli.parsers import Subparsers
from stoker.cli.pid_file import find_running
from stoker.cli.serve import make_folders
from stoker.exit_codes import ExitCode, describe_exit
from stoker.settings import MIB, Settings
from stoker.settings.load import check_folders, load

#: The log of an earlier run is put aside when it is larger.
MAX_LOG_BYTES: Final = 10 * MIB
TAIL_LINES: Final = 20


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "start",
        help="serve in the background; returns once the server is ready",
        description="Start `stoker serve` in the background, wait until it is ready, and print "
        "its addresses.  Its output goes to stoker.log in log_dir.",
        usage="stoker start [--config FILE] [--SETTING VALUE]...",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)


def run(_options: argparse.Namespace, settings_argv: Sequence[str]) -> ExitCode:
    settings = load(settings_argv, os.environ)
    check_folders(settings)
    make_folders(settings)
    if running := find_running(settings.runtime_dir):
        print(
            f"stoker is already running (pid {running.pid}); `stoker stop` stops it.",
            file=sys.stderr,
        )
        return ExitCode.ALREADY_RUNNING
    log = server_log(settings)
    try:
        begin = _prepare_log(log)
    except OSError as error:
        print(f"stoker: {log} cannot be written: {error.strerror}", file=sys.stderr)
        return ExitCode.NO_PERMISSION
    with NotifySocket(settings.runtime_dir / f"start-{os.getpid()}.sock") as notify:
        with log.open("ab") as output:
            process = spawn(settings_argv, os.environ, notify, output)
        # The two processes start one after the other.
        try:
            code = _wait_ready(process, notify, 2 * settings.start_timeout_s)
        except KeyboardInterrupt:
            process.terminate()
            raise
    if code is not ExitCode.OK:
        print(f"The last lines of {log}:", file=sys.stderr)
        for line in last_lines(log, TAIL_LINES, begin):
            print(f"  {line}", file=sys.stderr)
        return code
    _print_addresses(settings, process.pid, log)
    return ExitCode.OK


def _prepare_log(log: Path) -> int:
    """Make room for the log; returns its size, which is where this run's lines begin."""
    log.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as file:
        return file.tell()


def _wait_ready(
    process: subprocess.Popen[bytes], notify: NotifySocket, timeout_s: float
) -> ExitCode:
    status = wait_ready(process, notify, timeout_s)
    if status is None:
        print(f"stoker did not become ready within {timeout_s:g} s, stopping it", file=sys.stderr)
        process.terminate()
        return ExitCode.UNAVAILABLE
    if status:
        print(f"stoker did not start: exit {describe_exit(status)}", file=sys.stderr)
    return _as_exit_code(status)


def _as_exit_code(status: int) -> ExitCode:
    try:
        return ExitCode(status)
    except ValueError:
        return ExitCode.FAILURE


def _print_addresses(settings: Settings, pid: int, log: Path) -> None:
    running = find_running(settings.runtime_dir)
    print(STARTED_LINE)
    print(f"  {'pid':<10}  {pid}")
    for listener, address in (running.addresses if running else {}).items():
        print(f"  {listener:<10}  {address}")
    print(f"  {'log':<10}  {log}")
