"""The dialect itself: standing headers, the shape of an error, which rows where.

Source: contracts/torchserve.md 1.3, 1.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from stoker.frontend.dialect import Dialect
from stoker.frontend.dialects.torchserve.describe import describe_failure
from stoker.frontend.dialects.torchserve.inference import inference_routes
from stoker.frontend.dialects.torchserve.management import management_routes
from stoker.frontend.dialects.torchserve.problems import torchserve_problems
from stoker.frontend.dialects.torchserve.shapes import error_schema
from stoker.frontend.dialects.torchserve.standing import metrics_routes
from stoker.frontend.listeners import Role
from stoker.frontend.problems import Problem, ProblemRow
from stoker.frontend.routes import Route


class TorchServe(Dialect):
    """What clients of TorchServe 0.12 know."""

    name: ClassVar[str] = "torchserve"
    title: ClassVar[str] = "TorchServe APIs"
    fixed_head: ClassVar[bytes] = (
        b"Pragma: no-cache\r\n"
        b"Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
        b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
    )
    fixed_names: ClassVar[frozenset[bytes]] = frozenset((b"pragma", b"cache-control", b"expires"))

    @cached_property
    def problems(self) -> Mapping[str, ProblemRow]:
        return torchserve_problems(self.settings.queue_full_status)

    def error_document(self, problem: Problem) -> Any:
        if not problem.kind:
            return {"status": problem.message}
        document: dict[str, Any] = {"code": problem.status, "type": problem.kind}
        if problem.message:
            document["message"] = problem.message
        if problem.failure:
            document["failure"] = describe_failure(problem.failure)
        return document

    def error_schema(self, status: int | None, kinds: Iterable[str]) -> Mapping[str, Any]:
        return error_schema(status, kinds)

    def routes(self, role: Role) -> Sequence[Route]:
        if role is Role.INFERENCE:
            return inference_routes(self.settings)
        if role is Role.MANAGEMENT:
            return management_routes(self.settings)
        return metrics_routes()
