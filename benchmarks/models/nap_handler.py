"""A handler that takes a tenth of a second for a request, and starts in a second.

It sleeps, so that what is measured is not the number of processors.
"""

from __future__ import annotations

import time
from typing import Any

WORK_S = 0.1
LOAD_S = 1.0


class Nap:
    def initialize(self, context: Any) -> None:
        time.sleep(LOAD_S)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        time.sleep(WORK_S * len(data))
        return ["done"] * len(data)
