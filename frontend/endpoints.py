"""Endpoints of operators' own: Python where the peer has plugins in Java.

An installed package offers them under the entry-point group `stoker.endpoints`,
and the setting `endpoints` names those to serve:

    from stoker.frontend.endpoints import Endpoint, EndpointAnswer, EndpointRequest

    def brew(request: EndpointRequest) -> EndpointAnswer:
        return EndpointAnswer(b"short and stout", status=418, content_type="text/plain")

    teapot = Endpoint("inference", "teapot", {"GET": brew})

The functions run in threads, so they may wait; their path is one segment, and
takes the place of a built-in route of the same path.

Source: contracts/torchserve.md 1.6, 2.10.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final

from falcon.asgi import Request, Response

from stoker.errors import SettingsError, StokerError
from stoker.frontend.answers import answer_problem, exchange_of
from stoker.frontend.dialect import Dialect
from stoker.frontend.listeners import Role
from stoker.logs import get_logger

GROUP: Final = "stoker.endpoints"
_ROLES: Final = (Role.INFERENCE.value, Role.MANAGEMENT.value)
_SEGMENT: Final = re.compile(r"[\w.~-]+", re.ASCII)
#: Functions that may run at once in one process; more wait.
THREADS: Final = 8
#: A function that takes longer is not waited for any more.
TIMEOUT_S: Final = 60.0

log = get_logger("endpoints")


class EndpointMethodMissing(StokerError):
    """The endpoint has nothing for this method."""

    code = "endpoint_method_missing"


class EndpointBroken(StokerError):
    """The endpoint could not read or write something."""

    code = "endpoint_broken"


class EndpointFailed(StokerError):
    """The endpoint raised, took too long, or answered with nothing of ours."""

    code = "endpoint_failed"


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """What a client asks.  Names of headers are in lower case."""

    method: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    request_id: str


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    body: bytes
    status: int = 200
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of one listener, `inference` or `management`.

    Attributes:
        path: One segment, without a slash.
        methods: What answers, by method.
    """

    listener: str
    path: str
    methods: Mapping[str, Callable[[EndpointRequest], EndpointAnswer]]


def load_endpoints(names: Iterable[str]) -> list[Endpoint]:
    """The endpoints of these names.

    Raises:
        SettingsError: Nobody offers one, or what is offered cannot be served.
    """
    return [_load(name) for name in names]


def _load(name: str) -> Endpoint:
    offered = entry_points(group=GROUP, name=name)
    if not offered:
        known = ", ".join(sorted(entry_points(group=GROUP).names)) or "none"
        raise _refusal(f"no endpoint is called {name}; installed are: {known}")
    try:
        endpoint = next(iter(offered)).load()
    except Exception as error:
        raise _refusal(f"endpoint {name} cannot be imported: {error}") from error
    if not isinstance(endpoint, Endpoint):
        raise _refusal(f"endpoint {name} is no stoker.frontend.endpoints.Endpoint")
    if endpoint.listener not in _ROLES or not _SEGMENT.fullmatch(endpoint.path):
        raise _refusal(f"endpoint {name} cannot be served at {endpoint.path!r}")
    return endpoint


def _refusal(text: str) -> SettingsError:
    return SettingsError(f"endpoints: {text}", setting="endpoints", source="")


class Endpoints:
    """Runs the functions of all endpoints of one process."""

    def __init__(self, offered: Iterable[Endpoint] = ()) -> None:
        self._offered = tuple(offered)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="endpoint")

    def of_role(self, role: Role) -> list[Endpoint]:
        return [endpoint for endpoint in self._offered if endpoint.listener == role.value]

    async def run(
        self, function: Callable[[EndpointRequest], EndpointAnswer], request: EndpointRequest
    ) -> EndpointAnswer:
        """Raises EndpointBroken, EndpointFailed."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, function, request)
        try:
            answer = await asyncio.wait_for(work, TIMEOUT_S)
        except TimeoutError:
            log.error("an endpoint takes too long", request_id=request.request_id)
            raise EndpointFailed() from None
        except OSError:
            log.exception("an endpoint failed", request_id=request.request_id)
            raise EndpointBroken() from None
        except Exception:
            log.exception("an endpoint failed", request_id=request.request_id)
            raise EndpointFailed() from None
        if not isinstance(answer, EndpointAnswer) or not 200 <= answer.status <= 599:
            log.error("an endpoint gave no answer", request_id=request.request_id)
            raise EndpointFailed()
        return answer

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class EndpointResponder:
    """Falcon's responder for one endpoint."""

    def __init__(self, endpoints: Endpoints, endpoint: Endpoint, dialect: Dialect) -> None:
        self._endpoints = endpoints
        self._methods = {name.upper(): run for name, run in endpoint.methods.items()}
        self._dialect = dialect

    async def answer(self, request: Request, response: Response, **path: str) -> None:
        exchange = exchange_of(request)
        try:
            function = self._methods.get(request.method)
            if function is None:
                raise EndpointMethodMissing()
            asked = EndpointRequest(
                request.method,
                request.query_string,
                dict(request.headers_lower),
                exchange.take_body(),
                exchange.request_id,
            )
            answer = await self._endpoints.run(function, asked)
        except StokerError as error:
            answer_problem(request, response, self._dialect, error)
            return
        response.status = answer.status
        response.data = answer.body
        response.content_type = answer.content_type
