"""One frontend process: a site per listener, and their life.

Each listener gets the rows that its dialect serves for its roles.  The link to
the supervisor and the sweep over connections begin and end with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from stoker.clock import Clock, MonotonicClock
from stoker.errors import StokerError, SupervisorUnavailable
from stoker.frontend.access_log import AccessLog
from stoker.frontend.application import Application, FalconApp, Means
from stoker.frontend.asynchronous import AsynchronousAnswers
from stoker.frontend.counts import Counts
from stoker.frontend.dialect import Dialect
from stoker.frontend.dialects import load_dialect
from stoker.frontend.endpoints import Endpoint, Endpoints
from stoker.frontend.form_reader import FormReader
from stoker.frontend.guard import Door, Guard, HttpsOnly, open_paths
from stoker.frontend.header_lines import header_line
from stoker.frontend.keyring import Keyring
from stoker.frontend.lanes import Lanes
from stoker.frontend.limits import Limits
from stoker.frontend.listeners import Listener, Role
from stoker.frontend.reporting import Reporting
from stoker.frontend.request_ids import restart_request_ids
from stoker.frontend.results import FOLDER, Results
from stoker.frontend.same_site import SameSite
from stoker.frontend.site import Site
from stoker.frontend.startup_models import StartupModels
from stoker.frontend.sweep import sweep_connections
from stoker.frontend.tls import TlsMaterial, read_material
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.shares import Budget
from stoker.wire.arena import Arena
from stoker.wire.arena_folder import arena_folder
from stoker.wire.link import Link

#: Where both APIs share a listener, these stay as open, and as cheap, as on one of their own.
PREDICTIONS: Final = b"/predictions/"

#: After that a process without a supervisor accepts and answers 503.
WELCOME_WAIT_S: Final = 5.0

log = get_logger("http")


class Frontend:
    """One site per listener, one link for all.

    Args:
        on_welcome: Called once, when the supervisor first answers.
        keyring: What callers must show; None asks nobody for anything.
        endpoints: Served beside the dialects' routes.
        tls: For https listeners; read from the settings' files if not given.
    """

    def __init__(
        self,
        settings: Settings,
        listeners: Sequence[Listener],
        link: Link,
        limits: Limits | None = None,
        clock: Clock | None = None,
        on_welcome: Callable[[], None] | None = None,
        keyring: Keyring | None = None,
        endpoints: Iterable[Endpoint] = (),
        tls: TlsMaterial | None = None,
    ) -> None:
        restart_request_ids()
        self.settings = settings
        self.limits = limits or Limits.from_settings(settings)
        self.link = link
        self._clock = clock or MonotonicClock()
        self._on_welcome = on_welcome
        self._keyring = keyring
        self._endpoints = Endpoints(endpoints)
        self._tls = tls
        self._budget = Budget(self.limits.body_memory_bytes)
        self._lanes = Lanes(self._clock, link.max_pending)
        link.on_full = self._lanes.close_full
        self._counts = Counts()
        self._access_log = (
            AccessLog(settings.log_dir / "access_log.log")
            if settings.access_log == "file"
            else None
        )
        self._reporting = Reporting(link, self._lanes, self._counts, self._held)
        self._means = Means(
            link,
            self._reporting,
            self._lanes,
            self.limits,
            self._clock,
            keyring,
            self._endpoints,
            StartupModels(link),
            FormReader(self.limits),
            AsynchronousAnswers(
                Results(
                    settings.runtime_dir / FOLDER,
                    settings.async_results_max,
                    settings.async_results_max_bytes,
                    settings.async_results_keep_s,
                )
            ),
        )
        self._arena = Arena(
            arena_folder(settings.runtime_dir), link.frontend_id, self.limits.arena_bytes
        )
        self._chores: list[asyncio.Task[None]] = []
        self.sites = [self._site(listener) for listener in listeners]

    # -- life -----------------------------------------------------------------

    async def start(self) -> None:
        """Before the first connection: have a supervisor, or know that there is none."""
        # What was imported lives as long as we do, and a request makes no cycles.
        # No collection here: it would write to every object, and so take a copy
        # of all the memory that is shared with the master.
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        await self.link.start()
        # Nothing is accepted before the supervisor has welcomed us: a request
        # in the kernel's queue waits, one that we accept would be refused.
        with contextlib.suppress(SupervisorUnavailable):
            await self.link.wait_connected(WELCOME_WAIT_S)
        self._chores = [
            asyncio.create_task(self._sweep_for_ever()),
            asyncio.create_task(self._reporting.run()),
        ]
        if self._on_welcome is not None:
            self._chores.append(asyncio.create_task(self._await_welcome(self._on_welcome)))

    async def stop(self) -> None:
        """After the last one."""
        for chore in self._chores:
            chore.cancel()
        await self.link.close()
        if self._access_log is not None:
            self._access_log.flush()
            self._access_log.close()
        self._endpoints.close()
        self._arena.close()

    async def _await_welcome(self, on_welcome: Callable[[], None]) -> None:
        while True:
            try:
                await self.link.wait_connected(self.settings.start_timeout_s)
            except StokerError as error:
                log.warning("still no supervisor", error=error.message)
            else:
                on_welcome()
                return

    def _held(self) -> dict[str, int]:
        """What this process holds just now."""
        return {
            "connections": sum(len(site.connections) for site in self.sites),
            "bodies": self._budget.taken_bytes,
            "arena": self._arena.size_bytes,
        }

    async def _sweep_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.limits.sweep_interval_s)
            self._arena.sweep()
            if self._access_log is not None:
                self._access_log.flush()
            if self._keyring is not None:
                self._keyring.refresh()
            sites = [*self.sites, *filter(None, (site.plain for site in self.sites))]
            await sweep_connections(sites, loop.time(), self.limits.body_memory_bytes)

    # -- building -------------------------------------------------------------

    def _site(self, listener: Listener) -> Site:
        settings = self.settings
        dialect = load_dialect(listener.dialect)(settings)
        cors = (
            (b"access-control-allow-origin", settings.cors_allowed_origin),
            (b"access-control-allow-methods", settings.cors_allowed_methods),
            (b"access-control-allow-headers", settings.cors_allowed_headers),
        )
        guard = self._guard(listener, dialect)
        application = Application(self._means, dialect, listener.roles, guard)
        express = application.express()
        return Site(
            app=application.falcon(),
            express=express,
            guard=self._door(listener, guard),
            arena=None if express is None else self._arena,
            dialect=dialect,
            limits=self.limits,
            budget=self._budget,
            lanes=self._lanes,
            cors=tuple((name, header_line(name, text.encode())) for name, text in cors if text),
            **self._encryption(listener, dialect),
            logs_access=settings.log_level == "debug" or settings.access_log == "log",
            access_log=self._access_log,
            counts=self._counts,
        )

    def _encryption(self, listener: Listener, dialect: Dialect) -> dict[str, Any]:
        """What an https listener has, and what it tells those who speak plain HTTP."""
        if not listener.address.is_tls:
            return {}
        if self._tls is None:
            self._tls = read_material(self.settings)
        context = self._tls.context(asks_clients=Role.MANAGEMENT in listener.roles)
        plain = Site(
            FalconApp(),
            dialect,
            self.limits,
            self._budget,
            self._lanes,
            guard=HttpsOnly(),
            counts=self._counts,
        )
        return {"tls": context, "plain": plain}

    def _door(self, listener: Listener, guard: Guard | None) -> Door | None:
        if Role.MANAGEMENT not in listener.roles:
            return guard
        exempt = (PREDICTIONS,) if Role.INFERENCE in listener.roles else ()
        return SameSite(self.settings.cors_allowed_origin, guard, exempt)

    def _guard(self, listener: Listener, dialect: Dialect) -> Guard | None:
        if self._keyring is None or not {Role.INFERENCE, Role.MANAGEMENT} & {*listener.roles}:
            return None
        rows = [row for role in listener.roles for row in dialect.routes(role)]
        opened = open_paths(rows, health_needs_token=self.settings.health_needs_token)
        return Guard(self._keyring, listener.roles, opened)
