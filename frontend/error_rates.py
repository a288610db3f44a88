"""A guard on the rate of errors: too many in too short a time, and the server is unhealthy.

`<count>[/<ISO-8601 duration>]`, a minute by default: a bucket of `count` tokens,
to which every whole window that has passed adds as many.  A failure takes one of
its own kind, then one of `any`; when there is none the guard has tripped, and
stays so until the server is started again.

Each frontend process counts for itself; that one has tripped all of them see.

Source: contracts/djl-serving.md 2.1.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stoker.clock import Clock
from stoker.errors import SettingsError
from stoker.logs import get_logger

ANY: Final = "any"
#: Below the runtime directory: there while the guard has tripped.
MARKER: Final = "unhealthy"
_RATE: Final = re.compile(r"([0-9]{1,9})(?:/(.+))?")
_DURATION: Final = re.compile(
    r"P(?:([0-9]{1,5})D)?(?:T(?:([0-9]{1,6})H)?(?:([0-9]{1,7})M)?(?:([0-9]{1,8}(?:\.[0-9]+)?)S)?)?",
    re.IGNORECASE,
)
_UNITS_S: Final = (86400.0, 3600.0, 60.0, 1.0)
_WINDOW_S: Final = 60.0

log = get_logger("http")


class Bucket:
    """So many failures in a window; told the time."""

    def __init__(self, count: int, window_s: float, now: float) -> None:
        self._count = count
        self._window_s = window_s
        self._tokens = count
        self._filled_at = now

    def take(self, now: float) -> bool:
        """False when there was no token left."""
        windows = int((now - self._filled_at) // self._window_s)
        if windows > 0:
            self._tokens = min(self._count, self._tokens + windows * self._count)
            self._filled_at += windows * self._window_s
        if self._tokens <= 0:
            return False
        self._tokens -= 1
        return True


class ErrorRates:
    """The buckets of one process, and the mark that all processes see.

    Args:
        rates: Texts by kind; "" for no guard.
    """

    def __init__(self, rates: Mapping[str, str], runtime_dir: Path, clock: Clock) -> None:
        self._clock = clock
        self._marker = runtime_dir / MARKER
        now = clock.now()
        self._buckets = {
            kind: Bucket(*parse_rate(text, f"error_rate_{kind}"), now)
            for kind, text in rates.items()
            if text
        }

    @property
    def is_watching(self) -> bool:
        return bool(self._buckets)

    def note(self, kind: str) -> None:
        """A prediction has failed."""
        now = self._clock.now()
        for name in (kind, ANY):
            bucket = self._buckets.get(name)
            if bucket is not None and not bucket.take(now):
                self._trip(name)

    def has_tripped(self) -> bool:
        return self.is_watching and self._marker.exists()

    def _trip(self, kind: str) -> None:
        if not self._marker.exists():
            log.error("too many errors: the server calls itself unhealthy", rate=kind)
            with contextlib.suppress(OSError):
                self._marker.touch(mode=0o600)


def clear_mark(runtime_dir: Path) -> None:
    """The server is started."""
    (runtime_dir / MARKER).unlink(missing_ok=True)


def parse_rate(text: str, setting: str) -> tuple[int, float]:
    """Count and seconds.  Raises SettingsError."""
    match = _RATE.fullmatch(text.strip())
    window_s = None
    if match is not None:
        window_s = _WINDOW_S if match[2] is None else _seconds(match[2])
    if match is None or not window_s:
        raise SettingsError(
            f"{setting}={text} is no rate like 10 or 100/PT5M", setting=setting, source=setting
        )
    return int(match[1]), window_s


def _seconds(text: str) -> float | None:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    return sum(float(part or 0) * unit for part, unit in zip(match.groups(), _UNITS_S, strict=True))
