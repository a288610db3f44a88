"""When a lost worker is replaced, and when that is given up.

The waits are the peer's (contracts/torchserve.md 8.5) with one difference:
the first replacement of a worker that had loaded is immediate, since one
death says nothing about the next.  A worker that stays up for `STEADY_S`
clears the account.

A handler that says it cannot load, for a version of which no worker ever
loaded, is not tried again: nothing will have changed.  Once a version has
loaded, a failing load may be passing (the dead one's GPU memory is still being
freed), so it is tried again like a crash.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

DELAYS_S: Final = (0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)
STEADY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class RestartRecord:
    """What one slot remembers of its deaths in a row.

    `recovery_since` is the first death after the last time it was well.
    """

    deaths: int = 0
    recovery_since: float | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """Start a new worker at `at`; None: do not, it is given up."""

    at: float | None
    record: RestartRecord


def after_death(
    record: RestartRecord,
    *,
    now: float,
    loaded_at: float | None,
    max_retry_s: float,
    is_explained: bool = False,
) -> Restart:
    """Decide on a crash, a kill for silence, or a load that failed and may be passing.

    Args:
        is_explained: A request was found that kills workers.  This one was well,
            so the next is not made to wait, nor is its death held against it;
            that request's earlier victims count, so there is no endless loop.
        loaded_at: When the dead worker became ready; None if it never did.
        max_retry_s: `maxRetryTimeoutInSec`, the length of the recovery window.
    """
    if is_explained:
        return Restart(now, record)
    if loaded_at is not None and now - loaded_at >= STEADY_S:
        record = RestartRecord()
    since = record.recovery_since if record.recovery_since is not None else now
    if now - since >= max_retry_s and record.deaths > 0:
        return Restart(None, replace(record, recovery_since=since))
    # A worker that never loaded has no claim to the immediate try.
    index = record.deaths if loaded_at is not None else max(1, record.deaths)
    delay_s = DELAYS_S[min(index, len(DELAYS_S) - 1)]
    deaths = index + 1
    return Restart(now + delay_s, RestartRecord(deaths, since))
