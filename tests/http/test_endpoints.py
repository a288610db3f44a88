"""Endpoints of operators' own: contracts/torchserve.md 1.6, 2.10."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace
from typing import Any

import pytest

from stoker.errors import SettingsError
from stoker.frontend import endpoints as module
from stoker.frontend.endpoints import Endpoint, EndpointAnswer, load_endpoints

NOT_OURS = SimpleNamespace()
BAD_PATH = Endpoint("inference", "two/segments", {})
BAD_LISTENER = Endpoint("metrics", "teapot", {})
TEAPOT = Endpoint(
    "inference", "teapot", {"GET": lambda request: EndpointAnswer(b"short", 418, "text/plain")}
)


@pytest.fixture
def serve(start_frontend):
    """Start a frontend with one endpoint, and ask it."""

    def start(methods: dict[str, Any], path: str = "own", listener: str = "inference", **settings):
        own = Endpoint(listener, path, methods)
        running = start_frontend(own=[own], **settings)
        return lambda method="GET", target=f"/{path}", *rest: running.request(
            listener, method, target, *rest
        )

    return start


def test_endpoint_answers_as_it_wants(serve):
    """
    Status, body and type are its own; the standing headers are ours.
    """
    ask = serve({"GET": TEAPOT.methods["GET"]})

    answer = ask()

    assert (answer.status, answer.body) == (418, b"short")
    assert answer.header("content-type") == "text/plain"
    assert answer.header("Pragma") == "no-cache"
    assert answer.header("x-request-id")


def test_endpoint_is_told_what_was_asked(serve):
    """
    Everything about the request, and its id for the logs.
    """
    seen = []
    ask = serve({"POST": lambda request: seen.append(request) or EndpointAnswer(b"{}")})

    answer = ask("POST", "/own?a=1", b"body", (("X-Mixed", "Case"),))

    (request,) = seen
    assert (request.method, request.query, request.body) == ("POST", "a=1", b"body")
    assert request.headers["x-mixed"] == "Case"
    assert request.request_id == answer.header("x-request-id")


def _raise(error: Exception):
    def run(request):
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "status", "kind", "message"),
    [
        (None, 503, "ServiceUnavailableException", "Invalid HTTP method received"),
        (
            _raise(OSError("disk")),
            500,
            "InternalServerException",
            "I/O error while running the custom endpoint",
        ),
        (_raise(ValueError("bad")), 500, "InternalServerException", "Unknown exception"),
        (lambda request: "no answer", 500, "InternalServerException", "Unknown exception"),
        (
            lambda request: EndpointAnswer(b"", status=42),
            500,
            "InternalServerException",
            "Unknown exception",
        ),
    ],
)
def test_endpoint_that_fails_has_its_exact_shape(serve, run, status, kind, message):
    """
    The last row of 1.6; what it raised is for the log.
    """
    ask = serve({"GET": run} if run else {"POST": lambda request: EndpointAnswer(b"")})

    answer = ask()

    assert answer.json == {"code": status, "type": kind, "message": message}
    assert answer.status == status


def test_endpoint_that_takes_too_long_is_not_waited_for(serve, monkeypatch):
    """
    Every wait has a deadline.
    """
    import threading

    go_on = threading.Event()
    monkeypatch.setattr(module, "TIMEOUT_S", 0.05)
    ask = serve({"GET": lambda request: go_on.wait(20) and EndpointAnswer(b"")})

    answer = ask()
    go_on.set()

    assert (answer.status, answer.json["message"]) == (500, "Unknown exception")


def test_endpoint_takes_the_place_of_a_built_in_route(serve):
    """
    As a plugin of the peer may.
    """
    ask = serve({"GET": lambda request: EndpointAnswer(b"mine")}, path="ping")

    assert ask().body == b"mine"


def test_endpoint_belongs_to_its_listener(serve, frontend):
    """
    And needs its key, if keys are asked for.
    """
    ask = serve({"GET": lambda request: EndpointAnswer(b"mine")}, listener="management")

    assert ask().body == b"mine"
    assert frontend.request("inference", "GET", "/own").status == 404


# -- where they come from --------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch):
    """Packages that offer endpoints, as their metadata would."""
    offered = [
        EntryPoint(name, value, module.GROUP)
        for name, value in (
            ("teapot", f"{__name__}:TEAPOT"),
            ("other", f"{__name__}:NOT_OURS"),
            ("deep", f"{__name__}:BAD_PATH"),
            ("elsewhere", f"{__name__}:BAD_LISTENER"),
            ("broken", "no_such_module_anywhere:x"),
        )
    ]
    monkeypatch.setitem(__import__("sys").modules, __name__, SimpleNamespace(**globals()))
    monkeypatch.setattr(module, "entry_points", lambda **by: EntryPoints(offered).select(**by))


def test_endpoints_are_found_by_the_names_of_their_entry_points(installed):
    """
    Only those that the setting names are imported.
    """
    (found,) = load_endpoints(["teapot"])

    assert found is TEAPOT
    assert load_endpoints([]) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ghost", "no endpoint is called ghost; installed are: broken, deep, elsewhere"),
        ("other", "is no stoker.frontend.endpoints.Endpoint"),
        ("deep", "cannot be served at 'two/segments'"),
        ("elsewhere", "cannot be served at 'teapot'"),
        ("broken", "cannot be imported"),
    ],
)
def test_endpoint_that_cannot_be_served_refuses_the_start(installed, name, said):
    """
    A typing error shows at once, not as a 404 next month.
    """
    with pytest.raises(SettingsError, match=said):
        load_endpoints(["teapot", name])
