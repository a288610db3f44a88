"""Registered workflows: their nodes' models loaded, the whole of it durable, all or nothing.

    register     definition -> nodes' models in the engine, workers ready -> journal -> answer
    unregister   journal -> no new runs -> the last run ends -> nodes' models leave -> answer
    restored     journal -> definition -> nodes' models in the engine -> runs are taken

Source: docs/workflows.md; contracts/torchserve.md 4.4.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from stoker.archives.archive import ArchiveRequest
from stoker.clock import Clock
from stoker.errors import StokerError, WorkflowExists
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.calls import AwaitedCall, Value
from stoker.supervisor.desired import DesiredWorkflow, DropWorkflow, Plain, PutWorkflow
from stoker.supervisor.engine import Engine
from stoker.supervisor.journal import Journal
from stoker.supervisor.registrations import SETTLE_GRACE_S
from stoker.supervisor.version_archives import VersionArchives
from stoker.supervisor.versions import VersionKey
from stoker.supervisor.workflow_definitions import kept_workflow, plan_workflow
from stoker.supervisor.workflow_nodes import WorkflowNodes, not_loaded
from stoker.supervisor.workflow_plan import WorkflowPlan

log = get_logger("control")

#: Before the name of a node, in what is kept: the hash of its archive's content.
HASH_OF: Final = "hash of "


class WorkflowRegistrations:
    """Puts workflows into the engine and the journal, and takes them out."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        clock: Clock,
        source: ArchiveSource,
        archives: VersionArchives,
        journal: Journal,
        end_turn: Callable[[], None],
        begin: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._clock = clock
        self._source = source
        self._journal = journal
        self._end_turn = end_turn
        self._nodes = WorkflowNodes(settings, engine, clock, source, archives, end_turn)
        self._begin = begin
        #: Being registered or unregistered.
        self._busy: set[VersionKey] = set()

    # -- calls -----------------------------------------------------------------------

    async def register(self, arguments: Arguments) -> Value:
        """Raises StokerError: Nothing is registered."""
        asked = kept_workflow(arguments)
        plan = await plan_workflow(self._source, asked, None)
        try:
            self._check_new(plan.key, is_only_one=plan.shown.get("is_unversioned") is True)
        except BaseException:
            self._source.release_copy(plan.content_hash)
            raise
        self._busy.add(plan.key)
        name, version = plan.key
        value = {"workflow": name, "version": version, "outcome": "ready"}
        if arguments.flag("in_background"):
            self._begin(self._register_later(plan, asked))
            return {**value, "outcome": "scheduled"}
        await self._finish(plan, asked)
        return value

    async def _register_later(self, plan: WorkflowPlan, asked: dict[str, Plain]) -> None:
        """Nobody waits for how it ends but whoever reads the log."""
        try:
            await self._finish(plan, asked)
        except StokerError as error:
            log.error("workflow not registered", workflow=plan.key.model, reason=error.message)
        self._end_turn()

    async def _finish(self, plan: WorkflowPlan, asked: dict[str, Plain]) -> None:
        try:
            await self._register(plan, asked)
        finally:
            self._busy.discard(plan.key)
            self._source.release_copy(plan.content_hash)

    def _check_new(self, key: VersionKey, *, is_only_one: bool = False) -> None:
        """Raises WorkflowExists, ShuttingDown."""
        self._engine.workflows.check_new(key)
        is_taken = is_only_one and (
            key.model in self._engine.workflows.names()
            or key.model in self._engine.registry.names()
        )
        if key in self._busy or is_taken:
            raise WorkflowExists(f"Workflow {key.model} is already registered.", workflow=key.model)

    async def _register(self, plan: WorkflowPlan, asked: dict[str, Plain]) -> None:
        tasks = [asyncio.ensure_future(self._nodes.load(plan, node)) for node in plan.nodes]
        try:
            outcomes = await asyncio.gather(*tasks)
            failures = [outcome for outcome in outcomes if isinstance(outcome, str)]
            if failures:
                raise not_loaded(plan, failures)
            async with self._journal.changing():
                self._nodes.check_there(plan)
                self._engine.workflows.check_new(plan.key)
                hashes = {f"{HASH_OF}{node}": hash for node, hash in plan.hashes.items()}
                kept = {**asked, **hashes}
                desired = DesiredWorkflow(*plan.key, kept, plan.content_hash, time.time())
                await self._journal.write([PutWorkflow(desired)])
                self._engine.workflows.register(plan.key, plan.graph, plan.shown)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._nodes.roll_back(plan)
            raise

    async def unregister(self, name: str, version: str | None = None) -> Value:
        """Raises WorkflowNotFound, StateNotWritten."""
        async with self._journal.changing() as state:
            workflow = self._engine.workflows.find(name, version)
            key = workflow.key
            if key in state.workflows:
                await self._journal.write([DropWorkflow(key)])
            call = AwaitedCall(asyncio.get_running_loop().create_future())
            self._engine.workflows.unregister(key, call)
            self._busy.add(key)
        try:
            self._end_turn()
            timeout_s = self._settings.unregister_model_timeout
            await asyncio.wait({call.outcome}, timeout=timeout_s)
            leaving: list[asyncio.Future[Any]] = []
            for model in dict.fromkeys(node.model for node in workflow.graph.nodes):
                gone = AwaitedCall(asyncio.get_running_loop().create_future())
                if self._engine.workflows.owner_of(model) is not None:
                    continue  # another one calls it, too
                with suppress(StokerError):
                    self._engine.versions.unregister(
                        model, None, self._clock.now(), gone, timeout_s
                    )
                    leaving.append(gone.outcome)
            self._end_turn()
            if leaving:
                await asyncio.wait(leaving, timeout=timeout_s + SETTLE_GRACE_S)
        finally:
            self._busy.discard(key)
        return {"workflow": key.model, "version": key.version}

    # -- the start ------------------------------------------------------------------------

    async def restore(self, workflows: list[DesiredWorkflow]) -> None:
        """Serve what is stored; one that cannot be is said, and tried at the next start."""
        for desired in workflows:
            try:
                await self._restore(desired)
            except StokerError as error:
                log.error("workflow not restored", workflow=desired.name, reason=error.message)
            except Exception:
                log.exception("workflow not restored", workflow=desired.name)

    async def _restore(self, desired: DesiredWorkflow) -> None:
        asked = {**desired.asked, "workflow": desired.name}
        plan = await plan_workflow(self._source, asked, desired.content_hash)
        try:
            for node in plan.nodes:
                known = asked.get(f"{HASH_OF}{node.node}")
                if isinstance(node.source, ArchiveRequest) and isinstance(known, str):
                    node = node._replace(source=replace(node.source, known_hash=known))
                spec, counts = await self._nodes.serve(plan, node)
                if counts[1]:
                    self._engine.versions.scale(spec.key, *counts, self._clock.now())
            self._engine.workflows.register(plan.key, plan.graph, plan.shown)
        except BaseException:
            self._nodes.roll_back(plan)
            raise
        finally:
            self._source.release_copy(plan.content_hash)
