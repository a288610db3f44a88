"""The `/metrics` page, in the text format of Prometheus.

The supervisor has the numbers and says what they are called; here they are
written down.  Written by hand and not by the usual client library, which
would rename the peer's counters and keep numbers of its own.

Source: contracts/torchserve.md 10.1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from typing import Any, Final
from urllib.parse import parse_qsl

from falcon.asgi import Request, Response

from stoker.errors import StokerError
from stoker.frontend.answers import answer_problem
from stoker.frontend.dialect import Dialect
from stoker.frontend.reporting import Reporting

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
FILTER: Final = "name[]"
MAX_NAMES: Final = 1000


class Metrics:
    """Falcon's responder for the numbers."""

    def __init__(self, reporting: Reporting, dialect: Dialect) -> None:
        self._reporting = reporting
        self._dialect = dialect

    async def answer(self, request: Request, response: Response, **path: str) -> None:
        try:
            statistics = await self._reporting.statistics()
        except StokerError as error:
            answer_problem(request, response, self._dialect, error, "statistics")
            return
        response.content_type = TEXT_TYPE
        wanted = wanted_names(request.query_string)
        response.data = render_families(statistics.get("families", ()), wanted)


def wanted_names(query: str) -> frozenset[str] | None:
    """The names that `?name[]=A&name[]=B` asks for; None: all."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_NAMES)
    except ValueError:
        return frozenset()
    names = frozenset(value for name, value in pairs if name == FILTER)
    return names or None


def render_families(families: Sequence[Any], wanted: Collection[str] | None = None) -> bytes:
    """All families, or those with a wanted name.

    Args:
        families: Of each its name, type, help, names of labels, ends of
            buckets, and samples: values of labels, and a number, or of a
            histogram the counts of its buckets and the sum.
    """
    lines: list[str] = []
    for name, kind, text, labels, bounds, samples in families:
        if wanted is not None and name not in wanted:
            continue
        lines.append(f"# HELP {name} {_escaped(text)}\n# TYPE {name} {kind}\n")
        for values, number in samples:
            pairs = [
                f'{label}="{_quoted(value)}"' for label, value in zip(labels, values, strict=True)
            ]
            if kind == "histogram":
                lines += _histogram(name, pairs, bounds, *number)
            else:
                lines.append(f"{name}{_braced(pairs)} {_number(number)}\n")
    return "".join(lines).encode()


def _histogram(
    name: str, pairs: list[str], bounds: Sequence[float], counts: Sequence[int], total: float
) -> Iterator[str]:
    ends = [*(_number(bound) for bound in bounds), "+Inf"]
    count = 0
    for end, count in zip(ends, accumulate(counts), strict=True):
        bucket = [*pairs, f'le="{end}"']
        yield f"{name}_bucket{_braced(bucket)} {_number(count)}\n"
    yield f"{name}_count{_braced(pairs)} {_number(count)}\n"
    yield f"{name}_sum{_braced(pairs)} {_number(total)}\n"


def _braced(pairs: list[str]) -> str:
    return "{" + ",".join(pairs) + ",}" if pairs else ""


def _number(value: float) -> str:
    """As Java writes a double, which is how the peer's numbers look: `8.0`."""
    number = float(value)
    return {float("inf"): "+Inf", float("-inf"): "-Inf"}.get(number) or (
        "NaN" if number != number else repr(number)
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', '\\"')
