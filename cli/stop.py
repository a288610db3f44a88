"""`stoker stop`: ask the launcher of this runtime directory to end, and wait."""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import sys
import time
from collections.abc import Sequence

from stoker.cli.launcher import STOP_GRACE_S
from stoker.cli.parsers import Subparsers
from stoker.cli.pid_file import find_running
from stoker.cli.progress import Progress
from stoker.exit_codes import ExitCode
from stoker.process_start import start_ticks
from stoker.settings.load import load


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "stop",
        help="answer what is in hand, then end",
        description="Stop the server that runs in runtime_dir and wait until it is gone.",
        usage="stoker stop [--now] [--config FILE] [--SETTING VALUE]...",
        allow_abbrev=False,
    )
    parser.add_argument("--now", action="store_true", help="do not wait for requests in hand")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings_argv: Sequence[str]) -> ExitCode:
    settings = load(settings_argv, os.environ)
    running = find_running(settings.runtime_dir)
    if running is None:
        print(f"stoker is not running in {settings.runtime_dir}.")
        return ExitCode.OK
    try:
        handle = os.pidfd_open(running.pid)
    except ProcessLookupError:
        print("stoker has stopped.")
        return ExitCode.OK
    try:
        # Only after this second look does the handle surely name our process.
        if start_ticks(running.pid) != running.start_ticks:
            print("stoker has stopped.")
            return ExitCode.OK
        # Frontend and supervisor drain one after the other.
        timeout_s = 2 * (settings.drain_timeout_s + STOP_GRACE_S) + 5.0
        return _stop(handle, is_hurried=options.now, timeout_s=timeout_s)
    finally:
        os.close(handle)


def _stop(handle: int, *, is_hurried: bool, timeout_s: float) -> ExitCode:
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if is_hurried:
            wait_gone(handle, 0.2)  # two equal signals at once would count as one
            signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        print("stoker runs as another user; stop it as that user.", file=sys.stderr)
        return ExitCode.NO_PERMISSION
    if wait_gone(handle, timeout_s):
        print("stoker has stopped.")
        return ExitCode.OK
    print(f"stoker did not stop within {timeout_s:g} s; see `stoker status`.", file=sys.stderr)
    return ExitCode.UNAVAILABLE


def wait_gone(handle: int, timeout_s: float) -> bool:
    """True once the process has ended: its handle becomes readable."""
    deadline = time.monotonic() + timeout_s
    with Progress("stopping") as progress, selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        while (left_s := deadline - time.monotonic()) > 0:
            if selector.select(min(left_s, progress.interval_s)):
                return True
            progress.tick()
    return False
