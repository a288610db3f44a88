"""How many workers keep the wait short, for a load that comes at random.

The standard model of a queue with several servers (M/M/c, Erlang's C formula):
arrivals at random, service times that vary as much as they are long.  Handlers
mostly vary less, so the answer errs on the side of a worker too many; what it
errs on the other side is found by measuring (`scaling.py`).
"""

from __future__ import annotations

import math
from typing import Final

#: Of all requests, so many may wait longer than the target: "the 99th percentile".
LATE_SHARE: Final = 0.01


def late_share(workers: int, load: float, service_s: float, target_s: float) -> float:
    """Which share of the arrivals waits longer than `target_s`, from 0 to 1.

    Args:
        load: What comes, in workers that it keeps busy (arrivals per second
            times `service_s`).
        service_s: How long a worker is taken by one arrival.
    """
    if load <= 0:
        return 0.0
    if workers <= load:
        return 1.0
    blocked = 1.0  # Erlang's B, by its recursion over the number of workers
    for count in range(1, workers + 1):
        blocked = load * blocked / (count + load * blocked)
    waiting = blocked / (1 - load / workers * (1 - blocked))
    return waiting * math.exp(-(workers - load) * target_s / service_s) if service_s else 0.0


def workers_for(load: float, service_s: float, target_s: float, most: int) -> int:
    """The fewest workers with which no more than LATE_SHARE wait longer than `target_s`.

    Returns:
        0 for no load; one more than `most` when as many are not enough.
    """
    if load <= 0:
        return 0
    count = max(1, math.ceil(load))
    while count <= most and late_share(count, load, service_s, target_s) > LATE_SHARE:
        count += 1
    return min(count, most + 1)
