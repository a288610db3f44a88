"""Keys that callers must show: contracts/torchserve.md 3.10, 1.2, 1.6, A9."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

AUTHORIZATION = (
    "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
)
AUTHENTICATION = (
    "Token Authentication failed. Token either incorrect, expired, or not provided correctly"
)


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("Authorization", f"Bearer {key}"),)


class Keys:
    """What is in the key file now."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Any:
        return json.loads(self.path.read_text())

    def __getitem__(self, name: str) -> tuple[tuple[str, str], ...]:
        return bearer(self.read()[name]["key"])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys") / "key_file.json")


@pytest.fixture(scope="module")
def guarded_of_module(make_settings, frontend_of_module, keys) -> Iterator[Any]:
    settings = make_settings(disable_token_authorization=False, key_file=keys.path)
    running = type(frontend_of_module)(settings)
    yield running
    running.stop()


@pytest.fixture
def guarded(guarded_of_module, supervisor):
    """A frontend that asks for keys, and a clean supervisor."""
    supervisor.verbs["health"] = lambda arguments: {"is_healthy": True}
    supervisor.verbs["list"] = lambda arguments: {"models": [], "total": 0}
    return guarded_of_module


def test_the_file_is_as_the_peers_and_for_us_alone(guarded, keys):
    """Tools of the peer read it; keys are long, not the peer's 48 bits."""
    document = keys.read()
    left_s = (
        datetime.fromisoformat(document["inference"]["expiration time"]) - datetime.now(UTC)
    ).total_seconds()

    assert list(document) == ["management", "inference", "API"]
    assert list(document["management"]) == ["key", "expiration time"]
    assert list(document["API"]) == ["key"]
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}Z", document["inference"]["expiration time"]
    )
    assert 3000 < left_s <= 3600
    assert len({len(entry["key"]) for entry in document.values()}) == 1
    assert len(document["API"]["key"]) == 43
    assert len({entry["key"] for entry in document.values()}) == 3
    assert os.stat(keys.path).st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "headers",
    [
        (),
        bearer("wrong"),
        (("Authorization", "Basic abc"),),
        (("Authorization", ""),),
        (("Authorization", "Bearer"),),
        (("X-Authorization", "Bearer x"),),
    ],
)
@pytest.mark.parametrize(
    ("listener", "method", "target"),
    [
        ("inference", "GET", "/ping"),
        ("inference", "POST", "/predictions/echo"),
        ("inference", "GET", "/%70ing"),
        ("inference", "OPTIONS", "/predictions/echo"),
        ("inference", "GET", "/no/such/route"),
        ("inference", "GET", "http://test/ping"),
        ("management", "GET", "/models"),
        ("management", "POST", "/models?url=x.mar"),
        ("management", "DELETE", "/models/m"),
    ],
)
def test_without_the_key_there_is_one_answer(
    guarded, supervisor, echo, listener, method, target, headers
):
    """A9: 400, and nothing reaches the supervisor."""
    answer = guarded.request(listener, method, target, b"", headers)

    assert answer.status == 400
    assert answer.json == {"code": 400, "type": "InvalidKeyException", "message": AUTHORIZATION}
    assert answer.is_closed
    assert supervisor.jobs == []
    assert supervisor.calls == []


def test_each_listener_has_its_own_key(guarded, keys, echo):
    """Who may predict may not manage, nor the other way round; the API key opens neither."""
    statuses = {
        (listener, name): guarded.request(listener, "GET", target, b"", keys[name]).status
        for listener, target in (("inference", "/ping"), ("management", "/models"))
        for name in ("inference", "management", "API")
    }

    assert [pair for pair, status in statuses.items() if status == 200] == [
        ("inference", "inference"),
        ("management", "management"),
    ]
    assert set(statuses.values()) == {200, 400}


@pytest.mark.parametrize("target", ["/predictions/echo", "/%70redictions/echo"])
@pytest.mark.parametrize("space", [" ", "   ", "\t"])
def test_a_prediction_with_its_key_is_answered(guarded, keys, echo, target, space):
    """Both ways of a prediction; any white space after `Bearer` (3.10)."""
    key = keys.read()["inference"]["key"]

    answer = guarded.request(
        "inference", "POST", target, b"hi", (("AUTHORIZATION", f"Bearer{space}{key}"),)
    )

    assert (answer.status, answer.body) == (200, b"hi")


def test_two_authorization_headers_are_none(guarded, keys, echo):
    """A proxy may have looked at the other one."""
    both = (*keys["inference"], *bearer("else"))

    answer = guarded.request("inference", "GET", "/ping", b"", both)

    assert answer.status == 400


@pytest.mark.parametrize(
    ("listener", "method", "target", "status"),
    [
        ("inference", "OPTIONS", "/", 200),
        ("inference", "GET", "/api-description", 200),
        ("management", "GET", "/api-description/", 200),
        ("management", "GET", "/", 405),
        ("metrics", "GET", "/metrics", 200),
    ],
)
def test_descriptions_and_metrics_need_no_key(
    guarded, supervisor, listener, method, target, status
):
    """Contract 1.2."""
    supervisor.verbs["statistics"] = lambda arguments: {}

    assert guarded.request(listener, method, target).status == status


def test_a_refused_body_is_not_read(guarded):
    """Strangers must not fill our memory: the answer comes before the body does."""
    client = guarded.client()
    client.send(
        b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5000000\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )

    answer = client.read()

    assert answer.status == 400
    assert answer.json["type"] == "InvalidKeyException"


def test_the_key_is_asked_for_at_every_request_of_a_connection(guarded, keys, echo):
    """A connection is not a session."""
    client = guarded.client()

    first = client.request("GET", "/ping", b"", keys["inference"])
    second = client.request("GET", "/ping")

    assert (first.status, second.status) == (200, 400)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nContent-Length: 0\r\n\r\n",
        b"GET /predictions/echo HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\n\r\n",
        b"POST /predictions/echo HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
        b"POST /predictions/echo/../../api-description HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /api-description%2f..%2fping HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /api-description/../ping HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET //ping HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /ping? HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET ?/api-description HTTP/1.1\r\nHost: t\r\n\r\n",
    ],
)
def test_no_shape_of_a_request_gets_around_the_key(guarded, supervisor, echo, head):
    """Neither the parser's side ways nor a path that two readers read differently."""
    client = guarded.client()
    client.send(head)

    answer = client.read()

    assert answer.status == 400
    assert supervisor.jobs == supervisor.calls == []


def test_a_pipelined_request_without_the_key_is_not_worked_on(guarded, supervisor, keys, echo):
    """What follows a good request on its connection is judged by itself."""
    key = keys.read()["inference"]["key"].encode()
    good = b"POST /predictions/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n%b\r\nhi"
    client = guarded.client()

    client.send(good % (b"Authorization: Bearer " + key + b"\r\n") + good % b"")
    answer = client.read()
    rest = client.read_rest()

    assert (answer.status, answer.body) == (200, b"hi")
    assert b"HTTP/1.1 200" not in rest
    assert len(supervisor.jobs) == 1


@pytest.mark.parametrize("name", ["management", "inference"])
def test_the_api_key_renews_a_key_at_once(guarded, keys, name):
    """200 and an empty line; the new key is in the file alone (3.10)."""
    before, old = keys.read(), keys[name]
    target = {"management": ("management", "/models"), "inference": ("inference", "/ping")}[name]

    answer = guarded.request("management", "GET", f"/token?type={name}", b"", keys["API"])
    after = keys.read()

    assert (answer.status, answer.body) == (200, b"\n")
    assert answer.header("content-type") == "application/json"
    assert after[name]["key"] != before[name]["key"]
    assert after[name]["expiration time"] > before[name]["expiration time"]
    others = {"management", "inference", "API"} - {name}
    assert all(after[other] == before[other] for other in others)
    assert guarded.request(target[0], "GET", target[1], b"", old).status == 400
    assert guarded.request(target[0], "GET", target[1], b"", keys[name]).status == 200


@pytest.mark.parametrize("query", ["", "?type=", "?type=API", "?type=other", "?Type=inference"])
def test_only_two_keys_are_renewed(guarded, keys, query):
    """Contract 1.6."""
    before = keys.read()

    answer = guarded.request("management", "POST", f"/token{query}", b"", keys["API"])

    assert answer.status == 400
    assert answer.json == {"code": 400, "type": "InvalidKeyException", "message": AUTHENTICATION}
    assert keys.read() == before


@pytest.mark.parametrize("name", ["management", "inference", None])
def test_only_the_api_key_renews(guarded, keys, name):
    """The other keys must not prolong their own lives."""
    headers = () if name is None else keys[name]

    answer = guarded.request("management", "GET", "/token?type=inference", b"", headers)

    assert answer.status == 400
    assert answer.json["message"] == AUTHENTICATION


def test_token_is_a_route_of_the_management_listener_alone(guarded, keys):
    """Contract 3.10."""
    answer = guarded.request("inference", "GET", "/token?type=inference", b"", keys["API"])

    assert answer.status == 400
    assert answer.json["message"] == AUTHORIZATION


def test_without_token_authorization_token_is_no_route(frontend):
    """Contract 3.10: an ordinary 404."""
    answer = frontend.request("management", "GET", "/token?type=inference")

    assert answer.status == 404
    assert answer.json["type"] == "ResourceNotFoundException"


def test_an_edited_file_counts_at_once(guarded, keys, echo):
    """Rotation by hand: write the file, use the new key."""
    mine = "a-key-of-the-operators-own-choice"
    document = keys.read()
    document["inference"] = {"key": mine}
    draft = keys.path.with_suffix(".new")
    draft.write_text(json.dumps(document))
    draft.chmod(0o600)

    draft.replace(keys.path)
    answer = guarded.request("inference", "GET", "/ping", b"", bearer(mine))
    renewed = guarded.request("management", "GET", "/token?type=inference", b"", keys["API"])

    assert answer.status == 200
    assert renewed.status == 200
    # It had no end, so its successor has none.
    assert list(keys.read()["inference"]) == ["key"]
    assert guarded.request("inference", "GET", "/ping", b"", bearer(mine)).status == 400


def test_an_expired_key_is_refused(start_frontend, supervisor, tmp_path):
    """Contract 3.10; `token_expiration_min=0` is expired at birth."""
    keys = Keys(tmp_path / "key_file.json")
    running = start_frontend(
        disable_token_authorization=False, key_file=keys.path, token_expiration_min=0.0
    )

    answer = running.request("inference", "GET", "/ping", b"", keys["inference"])

    assert answer.status == 400
    assert answer.json["message"] == AUTHORIZATION


def test_probes_can_be_let_in(start_frontend, supervisor, tmp_path):
    """`health_needs_token=false`: for probes that cannot send headers."""
    supervisor.verbs["health"] = lambda arguments: {"is_healthy": True}
    running = start_frontend(
        disable_token_authorization=False,
        key_file=tmp_path / "key_file.json",
        health_needs_token=False,
        ts_open_inference_protocol=True,
    )

    assert running.request("inference", "GET", "/ping").status == 200
    assert running.request("inference", "GET", "/v2/health/live").status == 200
    assert running.request("inference", "GET", "/v2").status == 400
    assert running.request("inference", "GET", "/ping/").status == 200
    assert running.request("inference", "GET", "/predictions/m").status == 400


@pytest.fixture
def shared(start_frontend: Callable[..., Any], supervisor, tmp_path, short_folder) -> Any:
    """Inference and management on one address."""
    address = f"unix:{short_folder}/{os.urandom(4).hex()}.sock"
    supervisor.verbs["health"] = lambda arguments: {"is_healthy": True}
    supervisor.verbs["list"] = lambda arguments: {"models": [], "total": 0}
    supervisor.verbs["statistics"] = lambda arguments: {}
    running = start_frontend(
        inference_address=address,
        management_address=address,
        disable_token_authorization=False,
        key_file=tmp_path / "key_file.json",
    )
    running.keys = Keys(tmp_path / "key_file.json")
    return running


def test_on_a_shared_address_each_route_has_its_key(shared, echo):
    """The peer demands the inference key for everything there, so nobody can manage (1.2)."""
    expected = {
        ("POST", "/predictions/echo"): "inference",
        ("POST", "/%70redictions/echo"): "inference",
        ("GET", "/ping"): "inference",
        ("GET", "/models"): "management",
        ("GET", "/%6dodels"): "management",
    }
    for (method, target), owner in expected.items():
        for name in ("inference", "management", "API"):
            answer = shared.request("inference", method, target, b"", shared.keys[name])

            assert (answer.status == 200) == (name == owner), (target, name)
            assert answer.status in (200, 400)

    for name in ("inference", "management"):
        assert shared.request("inference", "GET", "/metrics", b"", shared.keys[name]).status == 200
    assert shared.request("inference", "GET", "/metrics").status == 400
    assert shared.request("inference", "OPTIONS", "/").status == 200
    renewal = shared.request("inference", "GET", "/token?type=inference", b"", shared.keys["API"])
    assert renewal.status == 200
