"""Calls that register: an archive, one that is fetched after the answer, or a workflow.

    url of an archive                        -> `registrations.py`, answered when it has ended
      with answers_first, not synchronous    -> the same, answered before anything is fetched
    template, or url of a definition         -> `workflow_registrations.py`

Whichever it is, not more than MAX_REGISTRATIONS are under way at once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

from stoker.archives.archive import ArchiveRequest
from stoker.errors import StokerError, TooManyRequests, VersionExists
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.calls import Caller, Value
from stoker.supervisor.desired import DesiredVersion
from stoker.supervisor.engine import Engine
from stoker.supervisor.registrations import Registrations
from stoker.supervisor.workflow_definitions import DJL
from stoker.supervisor.workflow_registrations import WorkflowRegistrations

log = get_logger("control")

#: Registrations under way at once; each may hold a thread for a download.
MAX_REGISTRATIONS: Final = 64


class RegisterCalls:
    """Finds out what is to be registered, and lets it.

    Args:
        begin: Runs something beside everything else.
        end_turn: Carries out what the engine decided.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        source: ArchiveSource,
        registrations: Registrations,
        workflows: WorkflowRegistrations,
        begin: Callable[[Coroutine[Any, Any, None]], None],
        end_turn: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._source = source
        self._registrations = registrations
        self._workflows = workflows
        self._begin = begin
        self._end_turn = end_turn
        self._under_way = 0

    async def register(self, arguments: Arguments, caller: Caller) -> Value | None:
        """Raises StokerError: Nothing is registered."""
        self._check_room()
        if await self._means_definition(arguments):
            return await self._register_definition(arguments, caller)
        self._check_is_no_workflow(arguments)
        request = ArchiveRequest(
            url=arguments.optional("url", str),
            model=arguments.optional("model", str),
            handler=arguments.optional("handler", str),
            runtime=arguments.optional("runtime", str),
            version=arguments.optional("version", str),
            s3_sse_kms=arguments.flag("s3_sse_kms"),
            default_handler=self._settings.default_service_handler,
            engine=arguments.optional("engine", str),
        )
        if arguments.flag("answers_first") and not arguments.flag("synchronous"):
            return await self._announce(request, arguments)
        with self._one_more():
            try:
                return await self._registrations.register(request, arguments, caller)
            except StokerError as error:
                log.warning(
                    "registration refused",
                    url=request.url,
                    reason=error.message,
                    why=error.details.get("reason"),
                )
                raise

    async def register_workflow(self, arguments: Arguments, caller: Caller) -> Value:
        """Raises StokerError: Nothing is registered."""
        self._check_room()
        with self._one_more():
            try:
                return await self._workflows.register(arguments)
            except StokerError as error:
                url = arguments.optional("url", str)
                log.warning("workflow refused", url=url, reason=error.message)
                raise

    def _check_room(self) -> None:
        if self._under_way >= MAX_REGISTRATIONS:
            raise TooManyRequests("Too many registrations are under way; try again later.")

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    # -- definitions, where models may be workflows ---------------------------

    async def _means_definition(self, arguments: Arguments) -> bool:
        """Is it a workflow's definition that is to be registered?"""
        if arguments.optional("template", str):
            return True
        url = arguments.optional("url", str) or ""
        return arguments.flag("answers_first") and await self._source.is_definition(url)

    async def _register_definition(self, arguments: Arguments, caller: Caller) -> Value:
        asked = {
            **arguments.stated(("url", "workflow", "template")),
            "notation": DJL,
            "parameters": arguments.mapping("parameters"),
            "in_background": not arguments.flag("synchronous"),
        }
        if not arguments.flag("is_unversioned"):
            asked |= arguments.stated(("version",))
        value = await self.register_workflow(Arguments(asked), caller)
        return {**value, "model": value["workflow"], "workers": 0}

    def _check_is_no_workflow(self, arguments: Arguments) -> None:
        """Raises VersionExists: Where models are workflows, both have one set of names."""
        model = arguments.optional("model", str)
        if arguments.flag("answers_first") and model in self._engine.workflows.names():
            raise VersionExists(
                f"Workflow {model} is already registered.",
                model=model,
                version=arguments.optional("version", str),
                is_unversioned=True,
            )

    # -- registrations that are answered before anything is fetched -----------

    async def _announce(self, request: ArchiveRequest, arguments: Arguments) -> Value:
        desired = await self._registrations.announce(request, arguments)
        self._begin(self._follow(desired, arguments))
        return {
            "model": desired.model,
            "version": desired.version,
            "workers": 0,
            "outcome": "scheduled",
        }

    async def _follow(self, desired: DesiredVersion, arguments: Arguments) -> None:
        try:
            with self._one_more():
                await self._registrations.follow(desired, arguments)
        finally:
            self._end_turn()
