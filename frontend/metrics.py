"""The `/metrics` page, in the text format of Prometheus.

For now the plain numbers of the supervisor's `statistics`; names and labels
as the peer has them come with the metrics themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from falcon.asgi import Request, Response

from stoker.errors import StokerError
from stoker.frontend.answers import answer_problem
from stoker.frontend.dialect import Dialect
from stoker.wire.link import Link

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_TIMEOUT_S: Final = 10.0
_NAME: Final = re.compile(r"[^a-zA-Z0-9_:]")


class Metrics:
    """Falcon's responder for the numbers."""

    def __init__(self, link: Link, dialect: Dialect) -> None:
        self._link = link
        self._dialect = dialect

    async def answer(self, request: Request, response: Response) -> None:
        try:
            statistics = await self._link.call("statistics", {}, _TIMEOUT_S)
        except StokerError as error:
            answer_problem(request, response, self._dialect, error, "statistics")
            return
        response.content_type = TEXT_TYPE
        response.data = render_statistics(statistics)


def render_statistics(statistics: Mapping[str, Any]) -> bytes:
    """One line per number; what is no number is left out."""
    lines = [
        f"stoker_{_NAME.sub('_', name)} {value}\n"
        for name, value in sorted(statistics.items())
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    return "".join(lines).encode()
