"""Starting and stopping as the peers' launchers do: one pid file, our streams, two exit codes.

Two things are better on purpose: a start in the background returns when the
server is ready (or has failed, with 1) instead of at once, and a stop when it
is gone, so that `--stop && --start` works although requests in hand are
answered first.

Source: contracts/torchserve.md 9.1; contracts/mms.md 8.2.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from stoker.cli.background import spawn, wait_ready
from stoker.cli.model_server_pid import ModelServerPid
from stoker.cli.notify_socket import NotifySocket
from stoker.cli.stop import wait_gone
from stoker.exit_codes import ExitCode
from stoker.settings import Settings

STOP_TIMEOUT_S: Final = 60.0


def as_peer_ends(status: int) -> int:
    """The peers know one failure."""
    return ExitCode.FAILURE if status else ExitCode.OK


def serve_here(argv: Sequence[str], environ: dict[str, str], pid_file: ModelServerPid) -> int:
    """In the foreground, until it is stopped."""
    from stoker.cli import serve

    os.environ.clear()
    os.environ.update(environ)
    pid_file.write(os.getpid())
    try:
        return as_peer_ends(serve.run(argparse.Namespace(), argv))
    finally:
        pid_file.remove()


def start_in_background(
    argv: Sequence[str],
    environ: dict[str, str],
    pid_file: ModelServerPid,
    settings: Settings,
    name: str,
) -> int:
    """Its output stays on our streams: tools wait there for `Model server started.`"""
    timeout_s = 2 * settings.start_timeout_s
    sys.stdout.flush()
    with NotifySocket(settings.runtime_dir / f"start-{os.getpid()}.sock") as notify:
        process = spawn(argv, environ, notify, None)
        try:
            pid_file.write(process.pid)
            status = wait_ready(process, notify, timeout_s)
        except BaseException:
            process.terminate()
            raise
    if status is None:
        print(f"{name} did not become ready within {timeout_s:g} s.")
        process.terminate()
        status = ExitCode.FAILURE
    if status:
        pid_file.remove()
    return as_peer_ends(status)


def stop_server(
    pid_file: ModelServerPid, pid: int | None, *, name: str, stopped: str, was_gone: str
) -> int:
    """Stop what was started from here, in a peer's words.

    Args:
        pid: Whom the file names; None: nobody who runs.
    """
    if pid is None:
        print(f"{name} is not currently running.")
        pid_file.remove()
        return ExitCode.OK
    is_gone = _terminate(pid)
    if is_gone is False:
        print(f"{name} did not stop within {STOP_TIMEOUT_S:g} s; it is still answering.")
        return ExitCode.FAILURE
    print(stopped if is_gone else was_gone)
    pid_file.remove()
    return ExitCode.OK


def _terminate(pid: int) -> bool | None:
    """SIGTERM, and whether it is gone within STOP_TIMEOUT_S; None if it was gone before."""
    try:
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            return wait_gone(handle, STOP_TIMEOUT_S)
        finally:
            os.close(handle)
    except ProcessLookupError:
        return None
