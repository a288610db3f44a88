"""The dialect itself: its name, how it tells errors and counts them, its rows.

Source: contracts/djl-serving.md 1, 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from stoker.clock import MonotonicClock
from stoker.errors import StokerError, WorkflowNodeFailed, from_wire
from stoker.frontend.dialect import Watch
from stoker.frontend.dialects.djl.inference import inference_routes
from stoker.frontend.dialects.djl.management import management_routes
from stoker.frontend.dialects.djl.problems import FAILED_DEPENDENCY, HANDLER, RATES, djl_problems
from stoker.frontend.dialects.djl.shapes import HANDLER_ERROR
from stoker.frontend.dialects.shared.dialect import PeerDialect
from stoker.frontend.error_rates import ErrorRates
from stoker.frontend.problems import Problem, ProblemRow
from stoker.frontend.routes import Route


class Djl(PeerDialect):
    """What clients of DJL Serving know."""

    name: ClassVar[str] = "djl"
    title: ClassVar[str] = "DJL Serving APIs"
    is_strict: ClassVar[bool] = True
    empty_is_absent: ClassVar[bool] = True

    @cached_property
    def error_rates(self) -> ErrorRates:
        """Raises SettingsError."""
        settings = self.settings
        rates = {
            "wlm": settings.error_rate_wlm,
            "server": settings.error_rate_server,
            "any": settings.error_rate_any,
        }
        return ErrorRates(rates, settings.runtime_dir, MonotonicClock())

    @property
    def watch(self) -> Watch | None:
        return self if self.error_rates.is_watching else None

    def answered(self, status: int) -> None:
        if status == FAILED_DEPENDENCY or status >= 500:
            self.error_rates.note("server")

    def told(self, problem: Problem, verb: str) -> None:
        rate = RATES.get(problem.kind)
        if verb == "predict" and rate is not None:
            self.error_rates.note(rate)

    @cached_property
    def problems(self) -> Mapping[str, ProblemRow]:
        return djl_problems(self.settings)

    def problem(
        self, error: StokerError, verb: str = "", arguments: Mapping[str, Any] | None = None
    ) -> Problem:
        """Of a workflow, the error of the node that failed (8.3)."""
        if isinstance(error, WorkflowNodeFailed) and "cause" in error.details:
            details = error.details
            cause, said = str(details.get("cause")), str(details.get("reason") or "")
            error = from_wire(cause, said, {**details, "model": details.get("node")})
        return super().problem(error, verb, arguments)

    def error_document(self, problem: Problem) -> Any:
        if problem.kind == HANDLER:
            return {
                "code": problem.status,
                "message": "invoke handler failure",
                "error": problem.message,
            }
        return super().error_document(problem)

    def error_schema(self, status: int | None, kinds: Iterable[str]) -> Mapping[str, Any]:
        others = {kind for kind in kinds if kind != HANDLER}
        has_handlers = others != set(kinds)
        if not has_handlers:
            return super().error_schema(status, others)
        if not others:
            return HANDLER_ERROR
        return {"anyOf": [HANDLER_ERROR, super().error_schema(status, others)]}

    def inference_routes(self) -> Sequence[Route]:
        return inference_routes(self.settings, self.error_rates.has_tripped)

    def management_routes(self) -> Sequence[Route]:
        return management_routes(self.settings)
