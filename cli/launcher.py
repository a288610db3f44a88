"""`stoker serve`: start the supervisor and the frontend, restart either, stop both in order.

For a terminal, a container, a test; under systemd the two units do this.  One
thread, one `select`: signal handlers only queue a byte, children speak through
one notify socket each, and every wait has a deadline.  Both programs are
imported here and run in forks (`program.py`), so that a restart is immediate.

    both start -> supervisor ready, frontend ready -> "Model server started."
    SIGTERM or SIGINT -> frontend drains and ends -> supervisor ends -> exit

Source: design section 1; contracts/torchserve.md 1.1 for the line on stdout.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping
from typing import Final

from stoker.cli.child import WATCHDOG_S, Child
from stoker.cli.listening import bound_addresses, wanted_addresses
from stoker.cli.pid_file import PidFile, Running, find_running, start_ticks
from stoker.cli.program import Program
from stoker.cli.restarts import GiveUp
from stoker.cli.signal_queue import SignalQueue
from stoker.exit_codes import ExitCode, describe_exit
from stoker.heap import let_go_of_files
from stoker.logs import get_logger
from stoker.notify import Notifier
from stoker.settings import Settings
from stoker.strays import become_subreaper, reap_strays

log = get_logger("launcher")

#: What tools wait for on standard output; exactly this.
STARTED_LINE: Final = "Model server started."
#: Beyond the time for draining, a child that is told to stop gets this much.
STOP_GRACE_S: Final = 10.0
#: After a second Ctrl-C.
HURRIED_STOP_S: Final = 3.0
#: Somebody else's dead child is reaped so much later.
STRAY_S: Final = 0.3
#: Between SIGABRT, which shows where a child hangs, and SIGKILL.
ABORT_GRACE_S: Final = 3.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Launcher:
    """Runs two programs as one server; `run` returns when both are gone."""

    def __init__(
        self,
        settings: Settings,
        supervisor: Program,
        frontend: Program,
        environ: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._notifier = Notifier(environ)
        self._pid_file = PidFile(settings.runtime_dir)
        self._programs = {"supervisor": supervisor, "frontend": frontend}
        self._children: dict[str, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._is_announced = False
        self._stops_asked = 0
        self._exit_code: ExitCode | None = None  # set once we are stopping
        self._watchdog_at = 0.0
        self._strays_at: float | None = None
        self._recorded: Running | None = None
        self._addresses = wanted_addresses(settings)

    def run(self) -> ExitCode:
        """Serve until told to stop, or until it makes no sense to go on."""
        if not self._pid_file.acquire_nowait():
            other = find_running(self._settings.runtime_dir)
            say = f" (pid {other.pid})" if other else ""
            print(
                f"stoker is already running{say} in {self._settings.runtime_dir}; "
                "`stoker stop` stops it.",
                file=sys.stderr,
            )
            return ExitCode.ALREADY_RUNNING
        try:
            with SignalQueue(_SIGNALS) as signals:
                return self._serve(signals)
        finally:
            for child in self._children.values():
                child.kill()
                child.close()
            self._selector.close()
            self._pid_file.release()
            self._notifier.close()

    def _serve(self, signals: SignalQueue) -> ExitCode:
        # Workers outlive a supervisor that dies, and become our children then.
        become_subreaper()
        self._selector.register(signals, selectors.EVENT_READ)
        for name, program in self._programs.items():
            child = Child(name, program, self._environ, self._settings.runtime_dir)
            self._children[name] = child
            self._selector.register(child.notify, selectors.EVENT_READ)
        # All imports before the first fork: what we did meanwhile would be copied.  Then
        # both at once; the frontend takes requests when the supervisor welcomes it.
        for program in self._programs.values():
            program.load()
        for child in self._children.values():
            child.start_at = time.monotonic()
        while True:
            self._start_due()
            self._record()
            if self._exit_code is not None and not any(
                child.is_running for child in self._children.values()
            ):
                return self._exit_code
            self._selector.select(self._wait_s())
            for number in signals.take():
                self._on_signal(number)
            for child in self._children.values():
                if child.hear():
                    self._on_ready(child)
            for child in self._children.values():
                if (status := child.reap_nowait()) is not None:
                    self._on_exit(child, status)
            self._reap_strays()
            self._check_deadlines()
            self._tell_watchdog()

    # -- events ---------------------------------------------------------------

    def _on_signal(self, number: signal.Signals) -> None:
        if number is signal.SIGCHLD:
            # The turn of the loop reaps ours.
            if self._strays_at is None:
                self._strays_at = time.monotonic() + STRAY_S
            return
        if number is signal.SIGHUP and not os.isatty(0):
            for child in self._children.values():
                child.signal(signal.SIGHUP)
            return
        self._stops_asked += 1
        log.info("stop asked for", signal=number.name)
        if self._stops_asked == 1:
            self._stop(self._exit_code or ExitCode.OK)
        else:
            self._hurry()

    def _on_ready(self, child: Child) -> None:
        log.info("process ready", process_name=child.name, child=child.pid)
        if self._exit_code is not None:
            return
        if child.name == "frontend":
            self._addresses = bound_addresses(self._settings)
        if not self._is_announced and all(each.is_ready for each in self._children.values()):
            self._is_announced = True
            self._record()
            _print_line(STARTED_LINE)
            self._notifier.ready("serving")
            # The two have what they need; all that is left to do here is to wait.
            let_go_of_files()

    def _on_exit(self, child: Child, status: int) -> None:
        if self._exit_code is not None:
            self._on_stopped(child, status)
            return
        now = time.monotonic()
        decision = child.restarts.after_death(
            status, was_ready=child.was_ready, was_ever_ready=child.was_ever_ready, now=now
        )
        if isinstance(decision, GiveUp):
            log.error(
                "process ended, giving up",
                process_name=child.name,
                exit=describe_exit(status),
                reason=decision.reason,
            )
            self._stop(decision.code)
            return
        child.start_at = now + decision.delay_s
        log.warning(
            "process ended, starting it again",
            process_name=child.name,
            exit=describe_exit(status),
            delay_s=decision.delay_s,
        )

    def _on_stopped(self, child: Child, status: int) -> None:
        log.info("process ended", process_name=child.name, exit=describe_exit(status))
        if self._exit_code is ExitCode.OK and status not in (0, -signal.SIGTERM, -signal.SIGINT):
            self._exit_code = ExitCode.FAILURE
        self._stop_next()

    # -- stopping -------------------------------------------------------------

    def _stop(self, code: ExitCode) -> None:
        self._exit_code = code
        self._notifier.stopping("draining")
        for child in self._children.values():
            child.start_at = None
        self._stop_next()

    def _stop_next(self) -> None:
        """The frontend first: it answers what it holds while the supervisor still works."""
        for name in ("frontend", "supervisor"):
            child = self._children[name]
            if child.is_running:
                child.is_stopping = True
                child.deadline = time.monotonic() + self._stop_timeout_s()
                child.signal(signal.SIGTERM)
                return

    def _stop_timeout_s(self) -> float:
        if self._stops_asked > 1:
            return HURRIED_STOP_S
        return self._settings.drain_timeout_s + STOP_GRACE_S

    def _hurry(self) -> None:
        """The person asked twice: nobody waits for requests any more; the third time kills."""
        for child in self._children.values():
            if self._stops_asked > 2:
                child.kill()
            elif child.is_running and child.is_stopping:
                # For gunicorn SIGQUIT is the quick way out.
                is_frontend = child.name == "frontend"
                child.signal(signal.SIGQUIT if is_frontend else signal.SIGTERM)
                child.deadline = time.monotonic() + HURRIED_STOP_S

    # -- time -----------------------------------------------------------------

    def _reap_strays(self) -> None:
        """Not at once: a supervisor that has adopted one wants to see how it ended."""
        if self._strays_at is not None and time.monotonic() >= self._strays_at:
            self._strays_at = None
            reap_strays({child.pid for child in self._children.values()})

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if child.start_at is None or child.start_at > now:
                continue
            try:
                child.start(timeout_s=self._settings.start_timeout_s)
            except OSError as error:
                log.error("process not started", process_name=child.name, reason=str(error))
                child.start_at = None
                self._stop(ExitCode.SYSTEM)
                return
            log.info("process started", process_name=child.name, child=child.pid)

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if child.deadline is None or child.deadline > now or not child.is_running:
                continue
            if child.is_stopping:
                log.error("process did not stop in time, killed", process_name=child.name)
                child.deadline = None
                child.kill()
            elif child.is_aborted:
                child.deadline = None
                child.kill()
            elif not child.was_ever_ready:
                log.error("process did not become ready in time", process_name=child.name)
                child.kill()
                self._stop(ExitCode.UNAVAILABLE)
            else:
                log.error("process hangs, aborted", process_name=child.name)
                child.is_aborted = True
                child.deadline = now + ABORT_GRACE_S
                child.signal(signal.SIGABRT)

    def _wait_s(self) -> float | None:
        """Until the next thing that time brings; None: for ever."""
        instants = [
            instant
            for child in self._children.values()
            for instant in (child.start_at, child.deadline if child.is_running else None)
            if instant is not None
        ]
        if self._strays_at is not None:
            instants.append(self._strays_at)
        if self._notifier.watchdog_interval_s is not None:
            instants.append(self._watchdog_at)
        return max(0.0, min(instants) - time.monotonic()) if instants else None

    def _tell_watchdog(self) -> None:
        interval_s = self._notifier.watchdog_interval_s
        now = time.monotonic()
        if interval_s is not None and now >= self._watchdog_at:
            self._notifier.watchdog()
            self._watchdog_at = now + min(interval_s, WATCHDOG_S)

    def _record(self) -> None:
        """Let `stoker status` know; written only when something changed."""
        running = Running(
            pid=os.getpid(),
            start_ticks=start_ticks(os.getpid()) or 0,
            is_ready=all(child.is_ready for child in self._children.values()),
            addresses=self._addresses,
            children={name: child.pid for name, child in self._children.items() if child.pid},
        )
        if running != self._recorded:
            self._recorded = running
            try:
                self._pid_file.write(running)
            except OSError as error:
                # A full disk or a swept folder is no reason to stop serving.
                log.error("pid file not written", reason=str(error))


def _print_line(text: str) -> None:
    try:
        os.write(1, text.encode() + b"\n")
    except OSError:
        log.warning("standard output is gone")
