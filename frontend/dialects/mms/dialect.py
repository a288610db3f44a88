"""The dialect itself: standing headers, the shape of an error, which rows where.

Source: contracts/mms.md 2, 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from stoker.frontend.dialect import Dialect
from stoker.frontend.dialects.mms.document import as_the_peer_says
from stoker.frontend.dialects.mms.inference import inference_routes
from stoker.frontend.dialects.mms.management import management_routes
from stoker.frontend.dialects.mms.problems import mms_problems
from stoker.frontend.dialects.shared.errors import error_document
from stoker.frontend.dialects.shared.shapes import error_schema
from stoker.frontend.dialects.shared.standing import (
    NEVER_CACHED,
    NEVER_CACHED_NAMES,
    metrics_routes,
)
from stoker.frontend.listeners import Role
from stoker.frontend.problems import Problem, ProblemRow
from stoker.frontend.routes import Route


class Mms(Dialect):
    """What clients of Multi Model Server 1.1 know."""

    name: ClassVar[str] = "mms"
    title: ClassVar[str] = "Model Server APIs"
    fixed_head: ClassVar[bytes] = NEVER_CACHED
    fixed_names: ClassVar[frozenset[bytes]] = NEVER_CACHED_NAMES

    @cached_property
    def problems(self) -> Mapping[str, ProblemRow]:
        return mms_problems(self.settings.queue_full_status)

    def error_document(self, problem: Problem) -> Any:
        return error_document(problem)

    def error_schema(self, status: int | None, kinds: Iterable[str]) -> Mapping[str, Any]:
        return error_schema(status, kinds)

    def routes(self, role: Role) -> Sequence[Route]:
        if role is Role.INFERENCE:
            return inference_routes(self.settings)
        if role is Role.MANAGEMENT:
            return management_routes(self.settings)
        return metrics_routes()

    def finish_document(self, document: dict[str, Any], model: str | None = None) -> dict[str, Any]:
        return as_the_peer_says(document, model)
