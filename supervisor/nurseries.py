"""What workers are forked of, and who waits until that is ready.

A template needs less than an interpreter of the worker's own would, and what
all workers share is not there once for each of them.  The parent of a preloaded
version has its model, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from stoker.supervisor.actions import Spawn
from stoker.supervisor.fences import BUBBLEWRAP
from stoker.supervisor.guarding import guarded
from stoker.supervisor.launcher import Nursery, WorkerCommand
from stoker.supervisor.parents import Parents
from stoker.supervisor.template import TemplateNursery
from stoker.supervisor.versions import Failure, VersionSpec
from stoker.supervisor.worker_orders import WorkerOrders
from stoker.supervisor.worker_output import WorkerOutput

#: A template that imports for longer is not waited for.
TEMPLATE_WAIT_S: Final = 2.0


class Nurseries:
    """Of one supervisor.

    Args:
        start: Called with a worker that has waited, and need not any longer.
        refuse: Called with one that has waited and will never be, and why.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        orders: WorkerOrders,
        output: WorkerOutput,
        start: Callable[[Spawn], None],
        refuse: Callable[[int, Failure], None],
        *,
        uses_templates: bool,
    ) -> None:
        self._loop = loop
        self._python = orders.python
        self._start = start
        self._uses_templates = uses_templates
        self._parents = Parents(
            loop, orders.parent_command, start, refuse, output.open, output.feed, output.close
        )
        self._templates = TemplateNursery(orders.template_environment())
        if uses_templates:
            self._templates.warm(self._python)
        #: Not started yet: a template that will fork them is still importing.
        self._waiting: dict[int, Spawn] = {}
        self._awaited_fd = -1
        self._awaited_until: asyncio.TimerHandle | None = None
        #: Versions whose handler imported something heavy.
        self._heavy: dict[VersionSpec, tuple[str, ...]] = {}

    @property
    def templates(self) -> Nursery | None:
        """For whatever has no parent of its own; None: they are turned off."""
        return self._templates if self._uses_templates else None

    def pids(self) -> set[int]:
        return self._templates.pids() | self._parents.pids()

    # -- waiting --------------------------------------------------------------

    def may_start(self, action: Spawn) -> bool:
        """Whether a worker can be started now; else it waits, for `start` or `refuse`."""
        if action.spec.is_preloaded:
            return self._parents.may_fork(action)
        if is_executed(action.spec) or (not self._waiting and not self._wait_for_template()):
            return True
        self._waiting[action.worker_id] = action
        return False

    def _wait_for_template(self) -> bool:
        template = self._templates.starting(self._python)
        if template is None:
            return False
        self._awaited_fd = template.fileno()
        self._loop.add_reader(self._awaited_fd, guarded(self._start_waiting))
        self._awaited_until = self._loop.call_later(TEMPLATE_WAIT_S, guarded(self._start_waiting))
        return True

    def _start_waiting(self) -> None:
        """The template has become ready, or died, or takes too long."""
        for action in self._take_waiting():
            self._start(action)

    def _take_waiting(self) -> list[Spawn]:
        if self._awaited_until is not None:
            self._loop.remove_reader(self._awaited_fd)
            self._awaited_until.cancel()
            self._awaited_until = None
        waiting, self._waiting = self._waiting, {}
        return list(waiting.values())

    def forget(self, worker_id: int) -> str | None:
        """A worker that waits is not wanted any more; why it never was, None if it did not wait."""
        if self._waiting.pop(worker_id, None) is not None:
            return "was not started"
        return "its model was not loaded" if self._parents.forget(worker_id) else None

    # -- forking --------------------------------------------------------------

    def prepare(self, command: WorkerCommand, spec: VersionSpec) -> WorkerCommand:
        """The same, and what it is forked of."""
        return replace(
            command,
            preload=self._heavy.get(spec, ()),
            parent=self._parents.of(spec) if spec.is_preloaded else None,
        )

    def note_heavy(self, spec: VersionSpec, heavy: object) -> None:
        """The next worker of such a version is forked from a template that has the import."""
        if not self._uses_templates or heavy != ["torch"]:
            return
        if not spec.python and spec.packages_dir is None and not spec.is_preloaded:
            self._heavy[spec] = ("torch",)
            self._templates.warm(self._python, ("torch",))

    # -- ends -----------------------------------------------------------------

    def sweep(self, is_wanted: Callable[[VersionSpec], bool]) -> None:
        self._parents.sweep(is_wanted)

    def release(self, spec: VersionSpec) -> None:
        """A version is gone with all its workers."""
        self._heavy.pop(spec, None)
        self._parents.release(spec)

    def let_nobody_wait(self) -> None:
        """Nobody will be started any more."""
        self._take_waiting()

    def close(self) -> None:
        self._templates.close()
        self._parents.close()


def is_executed(spec: VersionSpec) -> bool:
    """No template can fork it: its namespaces are made around a new process."""
    return spec.fence is not None and spec.fence.kind == BUBBLEWRAP
