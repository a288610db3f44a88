"""gunicorn's master, fitted: it is watched, it is not re-executed, and its processes end with it.

The master says that it is alive, not the processes that serve: for those it
has an eye of its own (gunicorn's `timeout`), and one that is well must not
speak for a sibling that is not.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from gunicorn.arbiter import Arbiter

from stoker.death_signal import die_with
from stoker.exit_codes import ExitCode
from stoker.frontend.shared_flag import SharedFlag
from stoker.logs import get_logger
from stoker.notify import Notifier

log = get_logger("frontend")


class Master(Arbiter):  # type: ignore[misc]
    """Runs until stopped."""

    def __init__(self, app: Any, notifier: Notifier) -> None:
        self._notifier = notifier
        self._watchdog_at = 0.0
        #: Processes that are told to end while it is set have no successors.
        self.end = SharedFlag()
        super().__init__(app)

    def murder_workers(self) -> None:
        """Called in every turn of the master's loop, at least once a second."""
        self._tell_watchdog()
        super().murder_workers()

    def reap_workers(self) -> None:
        """Called ten times a second while processes drain, which may take long."""
        self._tell_watchdog()
        super().reap_workers()

    def stop(self, graceful: bool = True) -> None:
        """All of them, and us."""
        self.end.set()
        super().stop(graceful)

    def handle_usr2(self) -> None:
        """Another master from the same command line would be another launcher."""
        log.warning("SIGUSR2 ignored: restart the server to upgrade it")

    def _tell_watchdog(self) -> None:
        interval_s = self._notifier.watchdog_interval_s
        now = time.monotonic()
        if interval_s is not None and now >= self._watchdog_at:
            self._watchdog_at = now + interval_s / 2
            self._notifier.watchdog()


def end_with_master(master_pid: int) -> None:
    """In a process that serves: without a master nobody could stop it, and it holds the ports."""
    if not die_with(master_pid, signal.SIGTERM):
        os._exit(ExitCode.UNAVAILABLE)
