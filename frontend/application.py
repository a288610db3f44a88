"""What one listener serves: the rows of its dialect as a Falcon application, and as a short way.

Source: contracts/torchserve.md 1.2, 2.1, 2.6.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final

from falcon.asgi import App, Request, Response

from stoker.clock import Clock
from stoker.frontend.answers import FixedAnswer, install_error_handlers
from stoker.frontend.asynchronous import AsynchronousAnswers
from stoker.frontend.consultation import Consultation, Question
from stoker.frontend.dialect import Dialect
from stoker.frontend.endpoints import EndpointResponder, Endpoints
from stoker.frontend.express import Express
from stoker.frontend.fetchable_predictions import FetchablePredictions
from stoker.frontend.form_reader import FormReader
from stoker.frontend.guard import Guard
from stoker.frontend.guarded import GuardedSubmission, guarded
from stoker.frontend.key_renewal import KeyRenewals
from stoker.frontend.keyring import Keyring
from stoker.frontend.lanes import Lanes
from stoker.frontend.limits import Limits
from stoker.frontend.listeners import Role
from stoker.frontend.management import Management
from stoker.frontend.metrics import Metrics
from stoker.frontend.openapi import ApiDescription, Documents
from stoker.frontend.predictions import Predictions
from stoker.frontend.problems import MethodNotAllowed
from stoker.frontend.reporting import Reporting
from stoker.frontend.routes import (
    ALL_METHODS,
    Description,
    Fixed,
    KeyRenewal,
    Operation,
    Prediction,
    Route,
)
from stoker.frontend.startup_models import StartupModels
from stoker.frontend.submission import Submission
from stoker.wire.link import Link

_FIELDS: Final = re.compile("{[^}]*}")

Responder = Callable[..., Awaitable[None]]
FalconApp = App[Request, Response]


@dataclass(frozen=True, slots=True)
class Means:
    """What all listeners of a process answer with."""

    link: Link
    reporting: Reporting
    lanes: Lanes
    limits: Limits
    clock: Clock
    keyring: Keyring | None
    endpoints: Endpoints
    startup_models: StartupModels
    forms: FormReader
    later: AsynchronousAnswers


class Application:
    """One listener's.

    Args:
        guard: What asks its callers for a key; None lets everybody in.
    """

    def __init__(
        self, means: Means, dialect: Dialect, roles: Sequence[Role], guard: Guard | None
    ) -> None:
        self._means = means
        self._dialect = dialect
        self._roles = roles
        self._guard = guard
        #: Only where routes need different keys must each ask for its own.
        self._shared_guard = guard if guard is not None and guard.is_shared else None
        self._rows = [(role, route) for role in roles for route in dialect.routes(role)]

    def falcon(self) -> FalconApp:
        """Everything, whatever way it is asked for."""
        app: FalconApp = App()
        # A prediction has the content type that its handler set, or none (2.6).
        app.resp_options.default_media_type = None  # type: ignore[assignment]
        install_error_handlers(app, self._dialect)
        for path, methods in self._by_path().items():
            app.add_route(path, _resource(methods))
        return app

    def express(self) -> Express | None:
        """The short way for routes like `/predictions/{model_name}`."""
        ways = [
            (
                _named(route.path),
                self._submission(route.serves, self._shared_guard),
                route.serves.has_versions,
            )
            for _, route in self._rows
            if isinstance(route.serves, Prediction)
            and _FIELDS.findall(_named(route.path)) == ["{model_name}"]
        ]
        return Express(ways, self._dialect) if ways else None

    # -- routes ---------------------------------------------------------------

    def _by_path(self) -> dict[str, dict[str, Responder]]:
        routes = _merge([route for _, route in self._rows])
        documents = Documents(self._dialect, routes, is_guarded=self._guard is not None)
        by_path: dict[str, dict[str, Responder]] = {}
        for route in routes:
            methods = by_path.setdefault(route.path, {})
            methods.update(dict.fromkeys(route.methods, self._guarded_row(route, documents)))
        endpoints = self._means.endpoints
        for role in self._roles:
            for endpoint in endpoints.of_role(role):
                own: Responder = EndpointResponder(endpoints, endpoint, self._dialect).answer
                if self._shared_guard is not None:
                    own = guarded(own, self._shared_guard, [role])
                by_path[f"/{endpoint.path}"] = dict.fromkeys(ALL_METHODS, own)
        return by_path

    def _guarded_row(self, route: Route, documents: Documents) -> Responder:
        responder = self._responder(route, documents)
        guard = self._shared_guard
        if guard is None or route.path.encode() in guard.open_paths:
            return responder
        same = (route.path, route.methods)
        roles = [role for role, row in self._rows if (row.path, row.methods) == same]
        return guarded(responder, guard, roles)

    def _responder(self, route: Route, documents: Documents) -> Responder:
        serves, means, dialect = route.serves, self._means, self._dialect
        if isinstance(serves, Prediction):
            submission = self._submission(serves)
            about = (submission, dialect, serves, means.startup_models, means.forms)
            if serves.is_fetchable:
                return FetchablePredictions(means.later, *about).answer
            return Predictions(*about).answer
        if isinstance(serves, Operation):
            only_model = means.startup_models if serves.may_name_no_model else None
            return Management(
                means.link, dialect, serves, self._consultation(serves), only_model
            ).answer
        if isinstance(serves, Description):
            return ApiDescription(means.link, dialect, documents, serves).answer
        if isinstance(serves, KeyRenewal):
            assert means.keyring is not None
            return KeyRenewals(means.keyring, dialect).answer
        if isinstance(serves, Fixed):
            return FixedAnswer(serves).answer
        return Metrics(means.reporting, dialect).answer

    def _submission(self, kind: Prediction, guard: Guard | None = None) -> Submission:
        means = self._means
        about = (means.link, means.lanes, self._dialect, means.limits, means.clock, kind)
        return Submission(*about) if guard is None else GuardedSubmission(guard, *about)

    def _consultation(self, operation: Operation) -> Consultation | None:
        if not operation.question:
            return None
        means = self._means
        kind = Prediction(headers=operation.question, is_alone=True)
        about = (means.link, means.lanes, self._dialect, means.limits, means.clock, kind)
        return Consultation(Question(*about))


def _named(path: str) -> str:
    """To the short way all names are one."""
    return path.replace("{workflow_name}", "{model_name}")


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
