"""What every process of a worker is, before any user code runs in it."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import signal
import stat
import sys

import setproctitle

from stoker.heap import keep_what_is_freed


def prepare_process(label: str) -> None:
    setproctitle.setproctitle(f"stoker: worker {label}")
    keep_what_is_freed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Pipes to the supervisor: whole lines, at once, and no print that
            # fails for a letter.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    _keep_pipes_alive()
    # SIGABRT is how the supervisor asks a stuck worker for its stacks before
    # killing it; SIGUSR1 shows them without an end.
    faulthandler.enable(all_threads=True)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # Ctrl-C in a terminal reaches the whole group; the supervisor decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _keep_pipes_alive() -> None:
    """Hold reading ends of our own output, so that no print fails while nobody reads it.

    Who reads is the supervisor; when it has died its successor opens the pipes anew.
    """
    for fd in (1, 2):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            # A worker that became another user may not.
            with contextlib.suppress(PermissionError):
                os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
