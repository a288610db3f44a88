"""What the dialects of all three peers have alike: standing headers, errors' documents, listeners.

Source: contracts/torchserve.md 1.3, 1.5; contracts/mms.md 2, 3; contracts/djl-serving.md 1, 2.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from stoker.frontend.dialect import Dialect
from stoker.frontend.dialects.shared.errors import error_document
from stoker.frontend.dialects.shared.shapes import error_schema
from stoker.frontend.dialects.shared.standing import metrics_routes
from stoker.frontend.listeners import Role
from stoker.frontend.problems import Problem
from stoker.frontend.routes import Route

NEVER_CACHED: Final = (
    b"Pragma: no-cache\r\n"
    b"Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
    b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)


class PeerDialect(Dialect):
    """A dialect whose metrics, headers and errors look as they do in all three."""

    fixed_head: ClassVar[bytes] = NEVER_CACHED
    fixed_names: ClassVar[frozenset[bytes]] = frozenset((b"pragma", b"cache-control", b"expires"))

    def error_document(self, problem: Problem) -> Any:
        return error_document(problem)

    def error_schema(self, status: int | None, kinds: Iterable[str]) -> Mapping[str, Any]:
        return error_schema(status, kinds)

    def routes(self, role: Role) -> Sequence[Route]:
        if role is Role.INFERENCE:
            return self.inference_routes()
        if role is Role.MANAGEMENT:
            return self.management_routes()
        return metrics_routes()

    @abstractmethod
    def inference_routes(self) -> Sequence[Route]: ...

    @abstractmethod
    def management_routes(self) -> Sequence[Route]: ...
