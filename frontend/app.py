"""The application of one frontend process: a Falcon app per listener, and their life.

Each listener gets the rows that its dialect serves for its roles.  The link to
the supervisor and the sweep over connections begin and end with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, Final

from falcon.asgi import App, Request, Response

from stoker.clock import Clock, MonotonicClock
from stoker.errors import StokerError, SupervisorUnavailable
from stoker.frontend.answers import FixedAnswer, install_error_handlers
from stoker.frontend.consultation import Consultation, Question
from stoker.frontend.dialect import Dialect
from stoker.frontend.dialects.torchserve import TorchServe
from stoker.frontend.endpoints import Endpoint, EndpointResponder, Endpoints
from stoker.frontend.exchange import header_line
from stoker.frontend.express import Express
from stoker.frontend.form_reader import FormReader
from stoker.frontend.guard import Guard, HttpsOnly, open_paths
from stoker.frontend.guarded import GuardedSubmission, guarded
from stoker.frontend.key_renewal import KeyRenewals
from stoker.frontend.keyring import Keyring
from stoker.frontend.lanes import Lanes
from stoker.frontend.limits import Limits
from stoker.frontend.listeners import Listener, Role
from stoker.frontend.management import Management
from stoker.frontend.metrics import Metrics
from stoker.frontend.openapi import ApiDescription, Documents
from stoker.frontend.predictions import Predictions
from stoker.frontend.problems import MethodNotAllowed
from stoker.frontend.request_ids import restart_request_ids
from stoker.frontend.routes import (
    ALL_METHODS,
    Description,
    Fixed,
    KeyRenewal,
    Operation,
    Prediction,
    Route,
)
from stoker.frontend.site import Site
from stoker.frontend.startup_models import StartupModels
from stoker.frontend.submission import Submission
from stoker.frontend.sweep import sweep_connections
from stoker.frontend.tls import TlsMaterial, read_material
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.shares import Budget
from stoker.wire.arena import Arena, arena_folder
from stoker.wire.link import Link

DIALECTS: Final[dict[str, type[Dialect]]] = {TorchServe.name: TorchServe}

#: After that a process without a supervisor accepts and answers 503.
WELCOME_WAIT_S: Final = 5.0

_FIELDS: Final = re.compile("{[^}]*}")

log = get_logger("http")

Responder = Callable[..., Awaitable[None]]
FalconApp = App[Request, Response]


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
        self._arena = Arena(
            arena_folder(settings.runtime_dir), link.frontend_id, self.limits.arena_bytes
        )
        self._startup_models = StartupModels(link)
        self._forms = FormReader(self.limits)
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
        self._chores = [asyncio.create_task(self._sweep_for_ever())]
        if self._on_welcome is not None:
            self._chores.append(asyncio.create_task(self._await_welcome(self._on_welcome)))

    async def stop(self) -> None:
        """After the last one."""
        for chore in self._chores:
            chore.cancel()
        await self.link.close()
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

    async def _sweep_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.limits.sweep_interval_s)
            self._arena.sweep()
            if self._keyring is not None:
                self._keyring.refresh()
            sites = [*self.sites, *filter(None, (site.plain for site in self.sites))]
            sweep_connections(sites, loop.time(), self.limits.body_memory_bytes)

    # -- building -------------------------------------------------------------

    def _site(self, listener: Listener) -> Site:
        settings = self.settings
        dialect = DIALECTS[listener.dialect](settings)
        cors = (
            (b"access-control-allow-origin", settings.cors_allowed_origin),
            (b"access-control-allow-methods", settings.cors_allowed_methods),
            (b"access-control-allow-headers", settings.cors_allowed_headers),
        )
        guard = self._guard(listener, dialect)
        express = self._express(listener, dialect, guard)
        return Site(
            app=self._application(listener, dialect, guard),
            express=express,
            guard=guard,
            arena=None if express is None else self._arena,
            dialect=dialect,
            limits=self.limits,
            budget=self._budget,
            lanes=self._lanes,
            cors=tuple((name, header_line(name, text.encode())) for name, text in cors if text),
            **self._encryption(listener, dialect),
            logs_access=settings.log_level == "debug",
        )

    def _encryption(self, listener: Listener, dialect: Dialect) -> dict[str, Any]:
        """What an https listener has, and what it tells those who speak plain HTTP."""
        if not listener.address.is_tls:
            return {}
        if self._tls is None:
            self._tls = read_material(self.settings)
        context = self._tls.context(asks_clients=Role.MANAGEMENT in listener.roles)
        app: FalconApp = App()
        plain = Site(app, dialect, self.limits, self._budget, self._lanes, guard=HttpsOnly())
        return {"tls": context, "plain": plain}

    def _guard(self, listener: Listener, dialect: Dialect) -> Guard | None:
        if self._keyring is None or not {Role.INFERENCE, Role.MANAGEMENT} & {*listener.roles}:
            return None
        rows = [row for role in listener.roles for row in dialect.routes(role)]
        opened = open_paths(rows, health_needs_token=self.settings.health_needs_token)
        return Guard(self._keyring, listener.roles, opened)

    def _application(self, listener: Listener, dialect: Dialect, guard: Guard | None) -> FalconApp:
        app: FalconApp = App()
        # A prediction has the content type that its handler set, or none (2.6).
        app.resp_options.default_media_type = None  # type: ignore[assignment]
        install_error_handlers(app, dialect)
        rows = [(role, route) for role in listener.roles for route in dialect.routes(role)]
        routes = _merge([route for _, route in rows])
        documents = Documents(dialect, routes, is_guarded=guard is not None)
        by_path: dict[str, dict[str, Responder]] = {}
        for route in routes:
            responder = self._responder(route, dialect, documents)
            if guard is not None and guard.is_shared:
                same = (route.path, route.methods)
                roles = [role for role, row in rows if (row.path, row.methods) == same]
                if route.path.encode() not in guard.open_paths:
                    responder = guarded(responder, guard, roles)
            methods = by_path.setdefault(route.path, {})
            methods.update(dict.fromkeys(route.methods, responder))
        for role in listener.roles:
            for endpoint in self._endpoints.of_role(role):
                own: Responder = EndpointResponder(self._endpoints, endpoint, dialect).answer
                if guard is not None and guard.is_shared:
                    own = guarded(own, guard, [role])
                by_path[f"/{endpoint.path}"] = dict.fromkeys(ALL_METHODS, own)
        for path, methods in by_path.items():
            app.add_route(path, _resource(methods))
        return app

    def _submission(
        self, dialect: Dialect, kind: Prediction, guard: Guard | None = None
    ) -> Submission:
        about = (self.link, self._lanes, dialect, self.limits, self._clock, kind)
        if guard is not None and guard.is_shared:
            return GuardedSubmission(guard, *about)
        return Submission(*about)

    def _express(self, listener: Listener, dialect: Dialect, guard: Guard | None) -> Express | None:
        """The short way for routes like `/predictions/{model_name}`."""
        ways = [
            (route.path, self._submission(dialect, route.serves, guard))
            for role in listener.roles
            for route in dialect.routes(role)
            if isinstance(route.serves, Prediction)
            and not route.serves.takes_query
            and _FIELDS.findall(route.path) == ["{model_name}"]
        ]
        return Express(ways, dialect) if ways else None

    def _consultation(self, dialect: Dialect, operation: Operation) -> Consultation | None:
        if not operation.question:
            return None
        kind = Prediction(headers=operation.question, is_alone=True)
        about = (self.link, self._lanes, dialect, self.limits, self._clock, kind)
        return Consultation(Question(*about))

    def _responder(self, route: Route, dialect: Dialect, documents: Documents) -> Responder:
        serves = route.serves
        if isinstance(serves, Prediction):
            submission = self._submission(dialect, serves)
            return Predictions(
                submission, dialect, serves, self._startup_models, self._forms
            ).answer
        if isinstance(serves, Operation):
            return Management(
                self.link, dialect, serves, self._consultation(dialect, serves)
            ).answer
        if isinstance(serves, Description):
            return ApiDescription(self.link, dialect, documents, serves).answer
        if isinstance(serves, KeyRenewal):
            assert self._keyring is not None
            return KeyRenewals(self._keyring, dialect).answer
        if isinstance(serves, Fixed):
            return FixedAnswer(serves).answer
        return Metrics(self.link, dialect).answer


def _merge(routes: Sequence[Route]) -> list[Route]:
    """Rows of several roles on one listener; of equal ones the described row stays."""
    merged: dict[tuple[str, tuple[str, ...]], Route] = {}
    for route in routes:
        key = (route.path, route.methods)
        if key not in merged or (route.operation_id and not merged[key].operation_id):
            merged[key] = route
    return list(merged.values())


async def _not_allowed(request: Request, response: Response, **path: str) -> None:
    raise MethodNotAllowed()


def _resource(methods: dict[str, Responder]) -> SimpleNamespace:
    """What Falcon routes to; every method is answered by us, none by a default of Falcon's."""
    return SimpleNamespace(
        **{f"on_{method.lower()}": methods.get(method, _not_allowed) for method in ALL_METHODS}
    )
