"""What a start loads, and what `/ping` makes of it: contracts/torchserve.md 2.2, 3.3, 9.4."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def ping(server):
    answer = server.ask("inference", "GET", "/ping")
    return answer.status, answer.json


HEALTHY = (200, {"status": "Healthy"})
UNHEALTHY = (500, {"status": "Unhealthy"})


def test_first_archive_of_a_name_is_its_default_version(start_server):
    """
    3.3, 9.4: in the order of the list; what cannot be loaded is left out, and nobody is unhealthy.
    """
    server = start_server(
        "--load-models", "noop_2.mar,noop.mar,damaged.mar", "--default-workers-per-model", "1"
    )
    server.expect_error("startup model left out")
    server.manage("POST", "/models", url="noop.mar", model_version="3.0")
    server.manage("POST", "/models", url="demo.mar")

    records = server.manage("GET", "/models/noop/all").json
    listed = server.manage("GET", "/models").json["models"]

    assert server.describe("noop")["modelVersion"] == "2.0"
    assert [record["modelVersion"] for record in records] == ["2.0", "1.0", "3.0"]
    # By name: also a version that came later (3.6).
    assert [record["loadedAtStartup"] for record in records] == [True] * 3
    assert server.describe("demo")["loadedAtStartup"] is False
    assert [model["modelName"] for model in listed] == ["demo", "noop"]
    assert ping(server) == HEALTHY


def test_model_that_still_loads_counts_as_healthy(server):
    """
    2.2: `/ping` says whether the server lives, not whether it is ready.
    """
    gate = server.gate("start")
    query = {"model_name": "slow", "handler": "slow_start:handle", "initial_workers": 1}
    server.manage("POST", "/models", **query)
    gate.wait_reached()

    assert ping(server) == HEALTHY
    assert server.describe("slow")["workers"][0]["status"] == "UNLOADING"
    assert server.ask("management", "GET", "/v1/models/slow").json["ready"] is True
    gate.let_go()


def test_default_version_without_its_workers_is_unhealthy(server, until):
    """
    2.2: each model's default version counts, and no other.
    """
    server.expect_error("load failed")
    server.manage("POST", "/models", url="noop.mar", initial_workers=1, synchronous="true")
    server.manage(
        "POST",
        "/models",
        model_name="noop",
        model_version="2.0",
        handler="broken",
        initial_workers=1,
    )
    until(lambda: server.describe("noop", "2.0")["status"] == "Failed", "2.0 cannot load")

    before = ping(server)
    server.manage("PUT", "/models/noop/2.0/set-default")
    meanwhile = ping(server)
    server.manage("PUT", "/models/noop/1.0/set-default")

    assert (before, meanwhile, ping(server)) == (HEALTHY, UNHEALTHY, HEALTHY)
