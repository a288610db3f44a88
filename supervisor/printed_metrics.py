"""Metrics that a worker printed: `[METRICS]name.Unit:value|#dim:val|#type:T|#hostname:h,epoch`.

Handlers may print such lines by themselves, also without the type; and where
metrics go to logs, a worker prints every update so.

Source: contracts/torchserve.md 7.5, 10.4.
"""

from __future__ import annotations

import re
from typing import Final

from stoker.wire.frames import HISTOGRAM_BOUNDS, Measurement

MARK: Final = "[METRICS]"
_LINE: Final = re.compile(
    r"(?P<name>[^.:|]+)\.(?P<unit>[^:|]+):(?P<number>[^|]+)\|#(?P<labels>[^|]*)"
    r"(?:\|#type:(?P<kind>[A-Z]+))?\|#hostname:(?P<host>[^,|]*),(?P<time>\d+)(?:,(?P<ids>.*))?"
)
_KINDS: Final = frozenset(("COUNTER", "GAUGE", "HISTOGRAM"))


def parse(line: str) -> tuple[Measurement, str] | None:
    """The update, and the peer's log line of it; None for what only begins like one."""
    match = _LINE.fullmatch(line[len(MARK) :])
    if match is None or (match["kind"] or "COUNTER") not in _KINDS:
        return None
    try:
        number = float(match["number"])
    except ValueError:
        return None
    pairs = [pair.partition(":") for pair in match["labels"].split(",") if pair]
    kind = (match["kind"] or "COUNTER").lower()
    counts = []
    if kind == "histogram":
        counts = [0] * (len(HISTOGRAM_BOUNDS) + 1)
        counts[sum(bound < number for bound in HISTOGRAM_BOUNDS)] = 1
    labels, values = [name for name, _, _ in pairs], [value for _, _, value in pairs]
    said = Measurement(kind, match["name"], match["unit"], labels, values, number, counts)
    ids = f"requestID:{match['ids']}," if match["ids"] else ""
    head = f"{match['name']}.{match['unit']}:{match['number']}|#{match['labels']}"
    return said, f"{head}|#hostname:{match['host']},{ids}timestamp:{match['time']}"
