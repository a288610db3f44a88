"""Management calls that wait for a version: for its workers, or for its end.

Each is answered exactly once: when what it asked for has come true, when that
cannot be any more, or when its time is up.

Source: contracts/torchserve.md 3.1, 3.5 and 3.7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stoker.errors import LoadFailed, LoadOutOfMemory, StokerError, UnregisterTimeout
from stoker.supervisor.actions import Action, Resolve
from stoker.supervisor.versions import Failure, VersionSpec


@dataclass(slots=True)
class Waiter:
    """One such call.

    Attributes:
        failures_before: The crew's count when the call came; a later failure
            is the call's.
        is_registration: A failure takes the version away again.
    """

    call: Any
    until: float
    failures_before: int = 0
    is_registration: bool = False


class Waiters:
    """The calls that wait for one version; true while some wait for its workers."""

    __slots__ = ("_actions", "_removal", "_scaling", "_spec")

    def __init__(self, spec: VersionSpec, actions: list[Action]) -> None:
        self._spec = spec
        self._actions = actions
        self._scaling: list[Waiter] = []
        self._removal: Waiter | None = None

    def __len__(self) -> int:
        return len(self._scaling)

    # -- for the workers ------------------------------------------------------

    def add(self, waiter: Waiter) -> None:
        self._scaling.append(waiter)

    def resolve(self, error: StokerError | None = None) -> None:
        """The workers are as wanted, or never will be."""
        waiters, self._scaling = self._scaling, []
        for waiter in waiters:
            self._resolve(waiter, error if error is not None else {"outcome": "ready"})

    def fail(self, failure: Failure | None, failure_count: int) -> bool:
        """Tell the calls that came before a failed load.

        Returns True if one of them was a registration, which is all or
        nothing: the version must go.
        """
        failed = [w for w in self._scaling if failure_count > w.failures_before]
        if not failed or failure is None:
            return False
        for waiter in failed:
            self._scaling.remove(waiter)
            self._resolve(waiter, load_error(self._spec, failure))
        return any(waiter.is_registration for waiter in failed)

    def expire(self, now: float) -> None:
        for waiter in [w for w in self._scaling if w.until <= now]:
            self._scaling.remove(waiter)
            self._resolve(waiter, {"outcome": "partial"})

    # -- for the end ----------------------------------------------------------

    def await_removal(self, waiter: Waiter | None) -> None:
        self._removal = waiter

    def resolve_removal(self) -> None:
        """The last worker is gone."""
        if self._removal is not None:
            self._resolve(self._removal, {})

    def expire_removal(self, now: float) -> bool:
        """Returns True if somebody has waited too long for the version to go."""
        removal, model = self._removal, self._spec.model
        if removal is None or removal.until > now:
            return False
        self._removal = None
        error = UnregisterTimeout(f"Timed out while cleaning resources: {model}", model=model)
        self._resolve(removal, error)
        return True

    def _resolve(self, waiter: Waiter, outcome: dict[str, Any] | StokerError) -> None:
        if waiter.call is not None:
            self._actions.append(Resolve(waiter.call, outcome))


def load_error(spec: VersionSpec, failure: Failure) -> LoadFailed:
    """What a waiting call is told of a version that cannot run."""
    kind: Callable[..., LoadFailed] = LoadOutOfMemory if failure.is_out_of_memory else LoadFailed
    return kind(
        failure.message, model=spec.model, version=spec.version, last_line=failure.last_line
    )
