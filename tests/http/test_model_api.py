"""The switch over registering and unregistering: contracts/torchserve.md 3.11."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

JSON = (("Content-Type", "application/json"),)


@pytest.fixture(scope="module")
def switched_off_of_module(make_settings, frontend_of_module) -> Iterator[Any]:
    running = type(frontend_of_module)(make_settings(enable_model_api=False))
    yield running
    running.stop()


@pytest.fixture
def switched_off(switched_off_of_module, supervisor) -> Any:
    """A frontend without the model API, and a clean supervisor."""
    return switched_off_of_module


@pytest.mark.parametrize(
    ("method", "target", "body", "headers"),
    [
        ("POST", "/models?url=x.mar", b"", ()),
        ("POST", "/models", b"{ not json", JSON),
        ("POST", "/models?batch_size=many", b"", ()),
        ("DELETE", "/models/m", b"", ()),
        ("DELETE", "/models/m/1.0", b"", ()),
        ("DELETE", "/%6dodels/m", b"", ()),
    ],
)
def test_whoever_asks_is_told_that_it_is_off(
    switched_off, supervisor, method, target, body, headers
):
    """Before anything of the request is looked at, and without asking the supervisor."""
    answer = switched_off.request("management", method, target, body, headers)

    assert answer.json == {
        "code": 405,
        "type": "MethodNotAllowedException",
        "message": "Requested method is not allowed, please refer to API document.",
    }
    assert answer.status == 405
    assert supervisor.calls == []


def test_the_rest_of_the_api_stays(switched_off, supervisor):
    """Scale, describe, list, set-default."""
    supervisor.verbs.update(
        scale=lambda arguments: {"outcome": "scheduled"},
        describe=lambda arguments: {"versions": []},
        list=lambda arguments: {"models": [], "total": 0},
        set_default=lambda arguments: {},
    )
    wanted = (
        ("GET", "/models"),
        ("GET", "/models/m"),
        ("PUT", "/models/m?min_worker=1"),
        ("PUT", "/models/m/1.0/set-default"),
    )

    statuses = [switched_off.request("management", *one).status for one in wanted]

    assert statuses == [200, 200, 202, 200]


def test_what_is_off_is_not_described(switched_off):
    """A client that reads the document must not be led into a 405."""
    paths = switched_off.request("management", "OPTIONS", "/").json["paths"]

    assert list(paths["/models"]) == ["get"]
    assert "delete" not in paths["/models/{model_name}"]
    assert "delete" not in paths["/models/{model_name}/{model_version}"]
