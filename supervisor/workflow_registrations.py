"""Registered workflows: their nodes' models loaded, the whole of it durable, all or nothing.

    register     definition -> nodes' models in the engine, workers ready -> journal -> answer
    unregister   journal -> no new runs -> the last run ends -> nodes' models leave -> answer
    restored     journal -> definition -> nodes' models in the engine -> runs are taken

Source: docs/workflows.md; contracts/torchserve.md 4.4.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from stoker.archives.resolve import ArchiveRequest, ResolvedArchive
from stoker.clock import Clock
from stoker.errors import (
    InvalidParameter,
    LoadFailed,
    StokerError,
    WorkflowExists,
    WorkflowNotLoaded,
)
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.calls import AwaitedCall
from stoker.supervisor.desired import DesiredWorkflow, DropWorkflow, Plain, PutWorkflow
from stoker.supervisor.engine import Engine
from stoker.supervisor.journal import Journal
from stoker.supervisor.registrations import SETTLE_GRACE_S, Registrations
from stoker.supervisor.specs import initial_workers
from stoker.supervisor.versions import VersionKey, VersionSpec
from stoker.supervisor.workflow_plan import NodePlan, WorkflowPlan, plan_war

log = get_logger("control")

#: What of a register call is kept.
KEPT: Final = ("url", "response_timeout_s", "startup_timeout_s", "s3_sse_kms")
_COMMON: Final = ("response_timeout_s", "startup_timeout_s", "s3_sse_kms")
#: Before the name of a node, in what is kept: the hash of its archive's content.
HASH_OF: Final = "hash of "
#: In `VersionSpec.shown` of a model that is there for a workflow alone.
OWNER: Final = "workflow"


class WorkflowRegistrations:
    """Puts workflows into the engine and the journal, and takes them out."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        clock: Clock,
        archives: ArchiveSource,
        registrations: Registrations,
        journal: Journal,
        end_turn: Any,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._clock = clock
        self._archives = archives
        self._registrations = registrations
        self._journal = journal
        self._end_turn = end_turn
        #: Being registered or unregistered.
        self._busy: set[VersionKey] = set()

    # -- calls -----------------------------------------------------------------------

    async def register(self, arguments: Arguments) -> dict[str, Any]:
        """Raises StokerError: Nothing is registered."""
        url = arguments.optional("url", str)
        if url is None:
            raise InvalidParameter("Parameter url is required.", parameter="url")
        request = ArchiveRequest(
            url=url,
            model=arguments.optional("workflow", str),
            s3_sse_kms=arguments.flag("s3_sse_kms"),
        )
        asked = arguments.stated(KEPT)
        plan = await self._plan(request, asked)
        try:
            self._check_new(plan.key)
            self._busy.add(plan.key)
            try:
                await self._register(plan, asked)
            finally:
                self._busy.discard(plan.key)
        finally:
            self._archives.release_copy(plan.content_hash)
        return {"workflow": plan.key.model, "version": plan.key.version}

    async def _plan(
        self, request: ArchiveRequest, asked: Any, *, may_fetch: bool = True
    ) -> WorkflowPlan:
        archive = await self._archives.obtain_war(request, may_fetch=may_fetch)
        try:
            common = {name: asked[name] for name in _COMMON if name in asked}
            return plan_war(archive, common)
        except BaseException:
            self._archives.release_copy(archive.content_hash)
            raise

    def _check_new(self, key: VersionKey) -> None:
        """Raises WorkflowExists, ShuttingDown."""
        self._engine.workflows.check_new(key)
        if key in self._busy:
            raise WorkflowExists(f"Workflow {key.model} is already registered.", workflow=key.model)

    async def _register(self, plan: WorkflowPlan, asked: dict[str, Plain]) -> None:
        tasks = [asyncio.ensure_future(self._load_node(plan, node)) for node in plan.nodes]
        try:
            outcomes = await asyncio.gather(*tasks)
            failures = [outcome for outcome in outcomes if isinstance(outcome, str)]
            if failures:
                raise _not_loaded(plan, failures)
            async with self._journal.changing():
                self._check_gone(plan)
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
            self._roll_back(plan)
            raise

    def _check_gone(self, plan: WorkflowPlan) -> None:
        """Raises WorkflowNotLoaded: A node's model has gone while others were loading."""
        failures = []
        for node in plan.nodes:
            if not self._is_here(plan, node):
                failures.append(f"Workflow Node {node.model} failed to register. Details: gone")
        if failures:
            raise _not_loaded(plan, failures)

    async def _load_node(self, plan: WorkflowPlan, node: NodePlan) -> str | None:
        """Register a node's model and wait for its workers.  Returns what went wrong."""
        try:
            spec, workers = await self._serve(plan, node)
        except StokerError as error:
            said = f"Workflow Node {node.model} failed to register. Details: {error.message}"
            log.warning("workflow node refused", node=node.model, reason=error.message)
            return said
        if not workers:
            return None
        call = AwaitedCall(asyncio.get_running_loop().create_future())
        with suppress(StokerError):
            self._engine.scale(
                spec.key,
                workers,
                workers,
                self._clock.now(),
                call=call,
                wait_s=spec.startup_timeout_s + SETTLE_GRACE_S,
                is_registration=True,
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

    async def _serve(
        self, plan: WorkflowPlan, node: NodePlan, *, may_fetch: bool = True
    ) -> tuple[VersionSpec, int]:
        """Put a node's model into the engine, without workers.  Raises StokerError."""
        source = node.source
        arguments = Arguments(node.arguments)
        if isinstance(source, ResolvedArchive):
            self._archives.share(source.content_hash)
            archive = source
        else:
            archive = await self._archives.obtain(source, may_fetch=may_fetch)
            if archive.content_hash is not None:
                plan.hashes[node.node] = archive.content_hash
        is_served = False
        try:
            spec = self._registrations.spec(archive, arguments, is_startup=False)
            spec.shown[OWNER] = plan.key.model
            count = initial_workers(archive, arguments, self._settings)[1]
            self._registrations.serve(spec, archive)
            is_served = True
            return spec, count
        finally:
            if not is_served:
                self._archives.release(archive)

    def _roll_back(self, plan: WorkflowPlan) -> None:
        for node in plan.nodes:
            with suppress(StokerError):
                for served in self._engine.registry.all_versions(node.model):
                    if served.spec.shown.get(OWNER) == plan.key.model:
                        self._engine.withdraw(served.spec.key, self._clock.now())
        self._end_turn()

    def _is_here(self, plan: WorkflowPlan, node: NodePlan) -> bool:
        with suppress(StokerError):
            return self._engine.registry.find(node.model).spec.shown.get(OWNER) == plan.key.model
        return False

    async def unregister(self, name: str) -> dict[str, Any]:
        """Raises WorkflowNotFound, StateNotWritten."""
        async with self._journal.changing() as state:
            workflow = self._engine.workflows.find(name)
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
                with suppress(StokerError):
                    if self._engine.registry.find(model).spec.shown.get(OWNER) != name:
                        continue
                    self._engine.unregister(model, None, self._clock.now(), gone, timeout_s)
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
        asked = dict(desired.asked)
        url = asked.get("url")
        request = ArchiveRequest(
            url=url if isinstance(url, str) else None,
            model=desired.name,
            s3_sse_kms=asked.get("s3_sse_kms") is True,
            known_hash=desired.content_hash,
        )
        plan = await self._plan(request, asked)
        try:
            for node in plan.nodes:
                known = asked.get(f"{HASH_OF}{node.node}")
                if isinstance(node.source, ArchiveRequest) and isinstance(known, str):
                    node = node._replace(source=replace(node.source, known_hash=known))
                spec, workers = await self._serve(plan, node)
                if workers:
                    self._engine.scale(spec.key, workers, workers, self._clock.now())
            self._engine.workflows.register(plan.key, plan.graph, plan.shown)
        except BaseException:
            self._roll_back(plan)
            raise
        finally:
            self._archives.release_copy(plan.content_hash)


def _not_loaded(plan: WorkflowPlan, failures: list[str]) -> WorkflowNotLoaded:
    return WorkflowNotLoaded(
        f"Workflow {plan.key.model} has failed to register. Failures: [{', '.join(failures)}]",
        workflow=plan.key.model,
        failures=", ".join(failures),
    )
