"""What a dialect owns: routes, parameters, defaults, units, texts, shapes, statuses.

The core answers with neutral outcomes and errors; a dialect is one subclass
in `dialects/`, named `DIALECT` there, and every listener speaks exactly one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from stoker.errors import StokerError
from stoker.frontend.listeners import Role
from stoker.frontend.problems import Problem, ProblemRow, solve
from stoker.frontend.routes import Route
from stoker.settings import Settings


class Watch(Protocol):
    """What a dialect does that counts failures."""

    def told(self, problem: Problem, verb: str) -> None:
        """An error is answered to a call or a prediction."""
        ...

    def answered(self, status: int) -> None:
        """A handler has set this status, which is 424 or above."""
        ...


class Dialect(ABC):
    """One API as clients know it."""

    #: As settings say it: that of its module.
    name: ClassVar[str]
    #: `info.title` of the OpenAPI document.
    title: ClassVar[str]
    #: Header lines of every answer, as bytes on the wire.
    fixed_head: ClassVar[bytes]
    #: Lower-case names of those headers: a handler cannot change them.
    fixed_names: ClassVar[frozenset[bytes]]
    #: A parameter that is not understood is an error, whatever the settings say.
    is_strict: ClassVar[bool] = False
    #: `name=` says nothing.
    empty_is_absent: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    @abstractmethod
    def problems(self) -> Mapping[str, ProblemRow]:
        """Error code, or `verb/code`, to how it is told."""

    @abstractmethod
    def routes(self, role: Role) -> Sequence[Route]:
        """The rows this dialect serves for a role."""

    @abstractmethod
    def error_document(self, problem: Problem) -> Any:
        """The body of an error answer, before it becomes JSON."""

    @abstractmethod
    def error_schema(self, status: int | None, kinds: Iterable[str]) -> Mapping[str, Any]:
        """JSON schema of such a document; None: only a handler knows the status."""

    def finish_document(self, document: dict[str, Any], model: str | None = None) -> dict[str, Any]:
        """The last word on an OpenAPI document, of the listener or of one model."""
        return document

    @property
    def watch(self) -> Watch | None:
        """Who wants to hear of failures; None: nobody."""
        return None

    def problem(
        self, error: StokerError, verb: str = "", arguments: Mapping[str, Any] | None = None
    ) -> Problem:
        return solve(self.problems, error, verb, arguments)
