"""The models of a workflow's nodes: into the engine, their workers ready, and out again.

Source: docs/workflows.md; contracts/torchserve.md 4.4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from stoker.archives.archive import ResolvedArchive
from stoker.clock import Clock
from stoker.errors import LoadFailed, StokerError, WorkflowNotLoaded
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.calls import AwaitedCall
from stoker.supervisor.engine import Engine
from stoker.supervisor.initial_workers import initial_workers
from stoker.supervisor.named_versions import OWNER
from stoker.supervisor.registrations import SETTLE_GRACE_S
from stoker.supervisor.version_archives import VersionArchives
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.workflow_plan import NodePlan, WorkflowPlan

log = get_logger("control")


class WorkflowNodes:
    """Carries out the nodes of plans.

    Args:
        end_turn: Carries out what the engine decided.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        clock: Clock,
        source: ArchiveSource,
        archives: VersionArchives,
        end_turn: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._clock = clock
        self._source = source
        self._archives = archives
        self._end_turn = end_turn

    async def load(self, plan: WorkflowPlan, node: NodePlan) -> str | None:
        """Register a node's model and wait for its workers.  Returns what went wrong."""
        try:
            spec, counts = await self.serve(plan, node)
        except StokerError as error:
            said = f"Workflow Node {node.model} failed to register. Details: {error.message}"
            log.warning("workflow node refused", node=node.model, reason=error.message)
            return said
        if not counts[1]:
            return None
        call = AwaitedCall(asyncio.get_running_loop().create_future())
        with suppress(StokerError):
            self._engine.versions.scale(
                spec.key,
                *counts,
                self._clock.now(),
                call=call,
                wait_s=spec.startup_timeout_s + SETTLE_GRACE_S,
                is_registration=spec.key in plan.made,
            )
            self._end_turn()
            outcome = await call.outcome
            if not isinstance(outcome, StokerError) and outcome.get("outcome") == "ready":
                return None
            if isinstance(outcome, LoadFailed):
                log.warning(
                    "workflow node did not load",
                    node=node.model,
                    last_line=outcome.details.get("last_line"),
                )
        return f"Failed to start workers for model {spec.model} version: {spec.version}"

    async def serve(
        self, plan: WorkflowPlan, node: NodePlan, *, may_fetch: bool = True
    ) -> tuple[VersionSpec, tuple[int, int]]:
        """Put a node's model into the engine, without workers.  Raises StokerError."""
        source = node.source
        arguments = Arguments(node.arguments)
        if isinstance(source, ResolvedArchive):
            self._source.share(source.content_hash)
            archive = source
        else:
            archive = await self._source.obtain(source, may_fetch=may_fetch, store=node.store)
            if archive.content_hash is not None:
                plan.hashes[node.node] = archive.content_hash
        if node.options:
            archive = replace(archive, config_raw={**archive.config_raw, **node.options})
        is_served = False
        try:
            spec = self._archives.spec(archive, arguments, is_startup=False)
            spec.shown[OWNER] = plan.key.model
            counts = initial_workers(archive, arguments, self._settings)
            if node.is_shared and self._is_served(node.model):
                return self._engine.registry.find(node.model).spec, counts
            self._archives.serve(spec, archive)
            plan.made.append(spec.key)
            is_served = True
            return spec, counts
        finally:
            if not is_served:
                self._source.release(archive)

    def check_there(self, plan: WorkflowPlan) -> None:
        """Raises WorkflowNotLoaded: A node's model has gone while others were loading."""
        failures = []
        for node in plan.nodes:
            if not self._is_served(node.model):
                failures.append(f"Workflow Node {node.model} failed to register. Details: gone")
        if failures:
            raise not_loaded(plan, failures)

    def roll_back(self, plan: WorkflowPlan) -> None:
        """Take away what a plan has brought, but for what another workflow calls by now."""
        for key in plan.made:
            if self._engine.workflows.owner_of(key.model) is None:
                with suppress(StokerError):
                    self._engine.versions.withdraw(key, self._clock.now())
        self._end_turn()

    def _is_served(self, model: str) -> bool:
        return model in self._engine.registry.names()


def not_loaded(plan: WorkflowPlan, failures: list[str]) -> WorkflowNotLoaded:
    """Args: failures: What went wrong with each of its nodes, in the peer's words."""
    return WorkflowNotLoaded(
        f"Workflow {plan.key.model} has failed to register. Failures: [{', '.join(failures)}]",
        workflow=plan.key.model,
        failures=", ".join(failures),
    )
