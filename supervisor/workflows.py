"""The workflows that are registered, by name and version.

Models and workflows have registries of their own; `workflow_runs.py` makes runs
of the requests for these.  Pure, as the engine is.

Source: docs/workflows.md; contracts/torchserve.md 4.3, djl-serving.md 8.
"""

from __future__ import annotations

from typing import Any, Protocol

from stoker.archives.graph import Graph
from stoker.errors import (
    ModelNotFound,
    ShuttingDown,
    StokerError,
    VersionExists,
    VersionNotFound,
    WorkflowExists,
    WorkflowNotFound,
)
from stoker.supervisor.actions import Action, Note, Resolve
from stoker.supervisor.jobs import TAKES_TURNS
from stoker.supervisor.registry import Registry
from stoker.supervisor.versions import VersionKey
from stoker.wire.frames import SubmittedJob


class Workflow:
    """A registered workflow.

    Attributes:
        shown: What describe says of it beside the graph.
        live: Runs that have not ended.
        held_bytes: What those hold.
        waiters: Calls that wait for the last run to end.
    """

    __slots__ = ("failures", "graph", "held_bytes", "key", "live", "requests", "shown", "waiters")

    def __init__(self, key: VersionKey, graph: Graph, shown: dict[str, Any]) -> None:
        self.key = key
        self.graph = graph
        self.shown = shown
        self.live = 0
        self.held_bytes = 0
        self.requests = 0
        self.failures = 0
        self.waiters: list[Any] = []

    def note(self, level: str, event: str, **facts: object) -> Note:
        return Note(level, event, {"workflow": self.key.model, **facts})

    def tell_waiters(self, actions: list[Action]) -> None:
        """Once its last run has ended."""
        if self.live:
            return
        for call in self.waiters:
            actions.append(Resolve(call, {}))
        self.waiters.clear()


class Server(Protocol):
    """The engine, as workflows need it."""

    @property
    def is_stopping(self) -> bool: ...


class Workflows:
    """All of them."""

    def __init__(self, server: Server, actions: list[Action]) -> None:
        self._registry: Registry[Workflow] = Registry()
        self._server = server
        self._actions = actions

    def names(self) -> list[str]:
        return self._registry.names()

    def find(self, name: str, version: str | None = None) -> Workflow:
        """Raises WorkflowNotFound."""
        try:
            return self._registry.find(name, version)
        except (ModelNotFound, VersionNotFound):
            raise _unknown(name, version) from None

    def all_versions(self, name: str) -> list[Workflow]:
        """Raises WorkflowNotFound."""
        try:
            return self._registry.all_versions(name)
        except ModelNotFound:
            raise _unknown(name, None) from None

    def check_new(self, key: VersionKey) -> None:
        """Raises WorkflowExists, ShuttingDown."""
        if self._server.is_stopping:
            raise ShuttingDown("The server is stopping.")
        try:
            self._registry.check_free(key)
        except VersionExists:
            raise WorkflowExists(
                f"Workflow {key.model} is already registered.",
                workflow=key.model,
                version=key.version,
            ) from None

    def register(self, key: VersionKey, graph: Graph, shown: dict[str, Any]) -> None:
        """Raises WorkflowExists, ShuttingDown."""
        self.check_new(key)
        workflow = Workflow(key, graph, shown)
        self._registry.add(key, workflow)
        self._actions.append(workflow.note("info", "workflow registered", nodes=len(graph.nodes)))

    def unregister(self, key: VersionKey, call: Any) -> None:
        """Take it away; `call` is resolved when its last run has ended.

        Raises:
            WorkflowNotFound.
        """
        workflow = self.find(*key)
        self._registry.discard(key)
        self._actions.append(workflow.note("info", "workflow unregistered", runs=workflow.live))
        workflow.waiters.append(call)
        workflow.tell_waiters(self._actions)

    def owner_of(self, model: str) -> Workflow | None:
        """The workflow that calls a model, if one does."""
        for workflow in self._registry:
            if any(node.model == model for node in workflow.graph.nodes):
                return workflow
        return None

    # -- by request -----------------------------------------------------------

    def knows(self, job: SubmittedJob) -> bool:
        return self.graph_of(job) is not None

    def graph_of(self, job: SubmittedJob) -> Graph | None:
        """Of the workflow that a request is for, if there is one."""
        try:
            return self._registry.find(job.model, job.version or None).graph
        except StokerError:
            return None

    def asked(self, job: SubmittedJob) -> Workflow:
        """The version that a request is for.  Raises WorkflowNotFound."""
        if not job.version and job.flags & TAKES_TURNS:
            try:
                return self._registry.next_of(job.model, lambda workflow: True)
            except ModelNotFound:
                raise _unknown(job.model, None) from None
        return self.find(job.model, job.version or None)


def _unknown(name: str, version: str | None) -> WorkflowNotFound:
    return WorkflowNotFound(f"Workflow not found: {name}", workflow=name, version=version)
