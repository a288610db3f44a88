"""How fast a queue moves, as far as its workers have shown.

Told to whom it refuses: a client is told when to come again, a frontend how
long it may go by what it knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from stoker.supervisor.workers import Worker

#: Beyond this nobody knows what the server will be doing.
MAX_RETRY_AFTER_S: Final = 300


def place_every_s(workers: Iterable[Worker], batch_size: int, now: float) -> float:
    """Seconds from one free place to the next; 0.0 while there is nothing to judge by."""
    places_per_s = 0.0
    for worker in workers:
        took_s = worker.service_time_s or 0.0
        if worker.in_hand:
            # One that hangs is not as fast as it used to be.
            took_s = max(took_s, now - worker.batch_since)
        if took_s > 0:
            places_per_s += batch_size / took_s
    return 1 / places_per_s if places_per_s else 0.0


def retry_after_s(waiting: int, place_every_s: float) -> int:
    """When half of what waits now will have been taken up, in whole seconds.

    Then as many who come again find room, and no worker has run out of work.
    """
    return max(1, math.ceil(min(MAX_RETRY_AFTER_S, waiting / 2 * place_every_s)))
