"""Registered workflows: their nodes' models loaded, the whole of it durable, all or nothing.

    register     definition -> nodes' models in the engine, workers ready -> journal -> answer
    unregister   journal -> no new runs -> the last run ends -> nodes' models leave -> answer
    restored     journal -> definition -> nodes' models in the engine -> runs are taken

Source: docs/workflows.md; contracts/torchserve.md 4.4.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from stoker.archives.manifest import DEFAULT_VERSION
from stoker.archives.resolve import ArchiveRequest, ResolvedArchive
from stoker.clock import Clock
from stoker.errors import (
    InvalidParameter,
    LoadFailed,
    StokerError,
    WorkflowExists,
    WorkflowInvalid,
    WorkflowNotLoaded,
)
from stoker.logs import get_logger
from stoker.names import check_model_name, check_version
from stoker.settings import Settings
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.calls import AwaitedCall
from stoker.supervisor.desired import DesiredWorkflow, DropWorkflow, Plain, PutWorkflow
from stoker.supervisor.engine import Engine
from stoker.supervisor.journal import Journal
from stoker.supervisor.kept_arguments import check_length
from stoker.supervisor.named_versions import OWNER
from stoker.supervisor.registrations import SETTLE_GRACE_S
from stoker.supervisor.specs import initial_workers
from stoker.supervisor.version_archives import VersionArchives
from stoker.supervisor.versions import VersionKey, VersionSpec
from stoker.supervisor.workflow_plan import NodePlan, WorkflowPlan, plan_djl, plan_war

log = get_logger("control")

#: What of a register call is kept.
KEPT: Final = (
    *("url", "workflow", "version", "template", "notation"),
    *("response_timeout_s", "startup_timeout_s", "s3_sse_kms"),
)
#: Of `notation`: a definition of DJL's, not an archive.
DJL: Final = "djl"
#: Before the name of a template's parameter, in what is kept.
PARAMETER: Final = "parameter "
_COMMON: Final = ("response_timeout_s", "startup_timeout_s", "s3_sse_kms")
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
        self._archives = archives
        self._journal = journal
        self._end_turn = end_turn
        self._begin = begin
        #: Being registered or unregistered.
        self._busy: set[VersionKey] = set()

    # -- calls -----------------------------------------------------------------------

    async def register(self, arguments: Arguments) -> dict[str, Any]:
        """Raises StokerError: Nothing is registered."""
        asked = arguments.stated(KEPT)
        for name, value in arguments.mapping("parameters").items():
            asked[f"{PARAMETER}{name}"] = str(value)
        check_length(asked)
        plan = await self._plan(asked, None)
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

    async def _plan(self, asked: Mapping[str, Any], known_hash: str | None) -> WorkflowPlan:
        """What a register call means, made now or before a restart."""
        url, name = asked.get("url"), asked.get("workflow")
        if asked.get("notation") == DJL:
            return await self._plan_djl(asked)
        if url is None:
            raise InvalidParameter("Parameter url is required.", parameter="url")
        request = ArchiveRequest(
            url=url, model=name, s3_sse_kms=asked.get("s3_sse_kms") is True, known_hash=known_hash
        )
        archive = await self._source.obtain_war(request)
        try:
            common = {name: asked[name] for name in _COMMON if name in asked}
            return plan_war(archive, common)
        except BaseException:
            self._source.release_copy(archive.content_hash)
            raise

    async def _plan_djl(self, asked: Mapping[str, Any]) -> WorkflowPlan:
        url, template = asked.get("url"), asked.get("template")
        if url is None and template is None:
            raise InvalidParameter("Parameter url is required.", parameter="url")
        parameters = {
            name.removeprefix(PARAMETER): str(value)
            for name, value in asked.items()
            if name.startswith(PARAMETER)
        }
        definition, folder = await self._source.obtain_definition(url or "", parameters, template)
        said = url if url is not None else f"template:{template}"
        name = asked.get("workflow") or definition.name
        if not name:
            raise WorkflowInvalid("The workflow definition has no name.", url=said)
        version = asked.get("version") or definition.version
        key = VersionKey(check_model_name(name), check_version(version or DEFAULT_VERSION))
        return plan_djl(definition, folder, said, key, is_unversioned=version is None)

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
            if not self._is_served(node.model):
                failures.append(f"Workflow Node {node.model} failed to register. Details: gone")
        if failures:
            raise _not_loaded(plan, failures)

    async def _load_node(self, plan: WorkflowPlan, node: NodePlan) -> str | None:
        """Register a node's model and wait for its workers.  Returns what went wrong."""
        try:
            spec, counts = await self._serve(plan, node)
        except StokerError as error:
            said = f"Workflow Node {node.model} failed to register. Details: {error.message}"
            log.warning("workflow node refused", node=node.model, reason=error.message)
            return said
        if not counts[1]:
            return None
        call = AwaitedCall(asyncio.get_running_loop().create_future())
        with suppress(StokerError):
            self._engine.scale(
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

    async def _serve(
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

    def _roll_back(self, plan: WorkflowPlan) -> None:
        for key in plan.made:
            if self._engine.workflows.owner_of(key.model) is None:
                with suppress(StokerError):
                    self._engine.withdraw(key, self._clock.now())
        self._end_turn()

    def _is_served(self, model: str) -> bool:
        return model in self._engine.registry.names()

    async def unregister(self, name: str, version: str | None = None) -> dict[str, Any]:
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
        asked = {**desired.asked, "workflow": desired.name}
        plan = await self._plan(asked, desired.content_hash)
        try:
            for node in plan.nodes:
                known = asked.get(f"{HASH_OF}{node.node}")
                if isinstance(node.source, ArchiveRequest) and isinstance(known, str):
                    node = node._replace(source=replace(node.source, known_hash=known))
                spec, counts = await self._serve(plan, node)
                if counts[1]:
                    self._engine.scale(spec.key, *counts, self._clock.now())
            self._engine.workflows.register(plan.key, plan.graph, plan.shown)
        except BaseException:
            self._roll_back(plan)
            raise
        finally:
            self._source.release_copy(plan.content_hash)


def _not_loaded(plan: WorkflowPlan, failures: list[str]) -> WorkflowNotLoaded:
    return WorkflowNotLoaded(
        f"Workflow {plan.key.model} has failed to register. Failures: [{', '.join(failures)}]",
        workflow=plan.key.model,
        failures=", ".join(failures),
    )
