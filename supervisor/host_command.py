"""The operator's own program that measures the host, in place of what we measure.

`system_metrics_cmd` is run every `metric_time_interval`, in a thread, and
prints what the peer's collector does:

    Name.Unit:value|#Level:Host|#hostname:h,epoch     one line for each number
                                                      an empty line
    pid:bytes                                         memory of workers

Of the names only the peer's count, as everywhere; workers' memory is known
better already (`residency.py`) and is read over.

Source: contracts/torchserve.md 10.4.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from typing import Final

from stoker.errors import SettingsError
from stoker.logs import get_logger
from stoker.supervisor.families import HOST, PEERS

log = get_logger("metrics")

#: For one run; after that it is killed.
DEADLINE_S: Final = 30.0
MAX_OUTPUT_BYTES: Final = 1 << 20
_LINE: Final = re.compile(
    r"(?P<name>[^.:|]+)\.(?P<unit>[^:|]+):(?P<number>[^|]+)\|#(?P<labels>[^|]*)\|#hostname:(?P<host>[^,|]*)"
)
#: Of which a program may say something: the host's, not the server's.
_NAMES: Final = frozenset(
    name
    for name, family in PEERS.items()
    if family.kind == "gauge"
    and set(family.labels) <= {*HOST, "DeviceId"}
    and name not in ("QueueTime", "WorkerThreadTime")
)

#: Name of a metric, values of its labels, number.
Row = tuple[str, list[str], float]


class HostCommand:
    """Runs the program, and knows what it said last.

    Args:
        command: `system_metrics_cmd`; "" for none.
        environ: What the program gets of the server's environment.

    Raises:
        SettingsError: The command has an open quote.
    """

    def __init__(self, command: str, interval_s: float, environ: Mapping[str, str]) -> None:
        try:
            self._argv = shlex.split(command)
        except ValueError as error:
            raise SettingsError(
                f"system_metrics_cmd is no command: {error}.", setting="system_metrics_cmd"
            ) from None
        self._interval_s = interval_s
        self._environ = environ
        self._run_at = float("-inf")
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._said = ""
        self._is_closed = False
        #: What it measured last.
        self.rows: list[Row] = []

    @property
    def is_set(self) -> bool:
        return bool(self._argv)

    def look(self, now: float) -> None:
        """Begin a run if one is due; called often."""
        if (
            not self._argv
            or self._is_closed
            or now < self._run_at + self._interval_s
            or self._is_running()
        ):
            return
        self._run_at = now
        self._thread = threading.Thread(target=self._run, name="host metrics", daemon=True)
        self._thread.start()

    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait_run(self, timeout_s: float) -> None:
        """Until the run that was begun has ended; for tests."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def close(self) -> None:
        """Its process does not outlive us."""
        self._is_closed = True
        if self._process is not None:
            _kill(self._process)

    # -- in the thread ----------------------------------------------------------

    def _run(self) -> None:
        try:
            rows = self._measure()
        except (OSError, subprocess.SubprocessError) as error:
            self._complain(f"{type(error).__name__}: {error}")
        else:
            self.rows = rows

    def _measure(self) -> list[Row]:
        # A file, not a pipe: it has room whether somebody reads or not.
        with tempfile.TemporaryFile() as out:
            process = self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(self._environ),
                start_new_session=True,
            )
            try:
                # Whoever closed us just now may not have seen it yet.
                status = process.wait(0.0 if self._is_closed else DEADLINE_S)
            finally:
                _kill(process)
                self._process = None
            out.seek(0)
            text = out.read(MAX_OUTPUT_BYTES).decode("utf-8", "replace")
        rows = parse(text)
        if status or not rows:
            last = text.strip().splitlines()[-1:] or ["it said nothing"]
            self._complain(f"exit {status}: {last[0][:200]}")
        return rows

    def _complain(self, why: str) -> None:
        """Once per reason: it will be the same the next time."""
        if why != self._said and not self._is_closed:
            self._said = why
            log.warning("system_metrics_cmd does not measure", why=why)


def parse(text: str) -> list[Row]:
    """The numbers in what such a program printed; lines that are none are read over."""
    rows: list[Row] = []
    for line in text.splitlines():
        match = _LINE.match(line.strip())
        if match is None or match["name"] not in _NAMES:
            continue
        try:
            number = float(match["number"])
        except ValueError:
            continue
        pairs = (pair.partition(":") for pair in match["labels"].split(","))
        said = {name: value for name, _, value in pairs}
        said["Hostname"] = match["host"]
        labels = PEERS[match["name"]].labels
        rows.append((match["name"], [said.get(label, "") for label in labels], number))
    return rows


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
