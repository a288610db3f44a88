"""The server against its own OpenAPI documents: no undocumented answer, no unlisted fault.

Every operation of both documents gets requests that fit its description and
requests that do not.  `make fuzz` runs more than ten thousand of them, at
random; CI a few of the same kind, always the same ones.

Source: contracts/torchserve.md 1.6, 2.9; issue 5, point 8.
"""

from __future__ import annotations

import copy
import json
import os
import re
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from stoker.frontend.dialects import load_dialect
from stoker.frontend.listeners import Role
from stoker.frontend.openapi import Documents
from stoker.settings import Settings

schemathesis = pytest.importorskip("schemathesis")
requests = pytest.importorskip("requests")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

#: Requests per operation and way of making them, and where chance begins;
#: `make fuzz` asks for more, and for others every time.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10"))
#: Where a dialect has a share of them only: the core behind it is the same.
SHARES = {"torchserve": 1.0, "mms": 0.3}
SEED = int(os.environ.get("FUZZ_SEED", "0"))

#: Faults that the contract lists, and no others.
LISTED = [
    (503, r'Model ".*"( Version .*")? has no worker to serve (inference|describe) request\. .*'),
    (503, r"Model .* was unregistered\."),
    (500, r"Failed to start workers for model .* version: .*"),
    (500, r"Failed to save model: .*"),
    (500, r"Failed to get customized model matadata\."),
    (503, r"No worker is available to serve request for model: .*"),
    (500, r"Failed to start workers"),
]
#: What a request may not ask of the machine that runs the tests.
MOST = {"initial_workers": 1, "min_worker": 2, "max_worker": 2, "max_batch_delay": 20}
MODELS = ("noop", "probe", "idle", "ghost")
VERSIONS = ("1.0", "2.0", "all", "9")
DELETES = ("DELETE /models/{model_name}", "DELETE /models/{model_name}/{model_version}")
#: What a parameter mostly is, for nearly all that chance finds is refused at once.
GOOD = {
    "handler": ("noop:handle", "probe:handle"),
    "url": ("noop.mar", "noop_2.mar", "demo.mar", "tarred.tar.gz", "noop-v1.0", "damaged.mar"),
    "model_name": (*MODELS, *(f"new{i}" for i in range(20))),
    "model_version": VERSIONS,
    "runtime": ("python", "PYTHON", "python3", "java"),
    "batch_size": (1, 4),
}


def _documents() -> dict[str, Any]:
    found = {}
    for name in SHARES:
        dialect = load_dialect(name)(Settings())
        for role in (Role.INFERENCE, Role.MANAGEMENT):
            document = Documents(dialect, dialect.routes(role), is_guarded=False).of_api
            found[f"{name}/{role.value}"] = json.loads(json.dumps(document))
    return found


DOCUMENTS = _documents()
OPERATIONS = [
    pytest.param(listener, path, method, id=f"{listener} {method.upper()} {path}")
    for listener, document in DOCUMENTS.items()
    for path, methods in document["paths"].items()
    for method in methods
]


@pytest.fixture(scope="module")
def server_flags():
    free = "http://127.0.0.1:0"
    return ("--listeners", ",".join(f"{free} {name.replace('/', ' ')}" for name in DOCUMENTS))


@pytest.fixture(scope="module")
def api(server_of_module: Any) -> Iterator[Any]:
    """What asks: the schemas, and one session for all requests."""
    with requests.Session() as session:
        session.trust_env = False
        schemas = {
            listener: schemathesis.openapi.from_dict(document)
            for listener, document in DOCUMENTS.items()
        }
        yield session, schemas


@pytest.fixture
def staffed(server: Any) -> Any:
    """Two models with workers, two versions of one, and one model without any."""
    server.manage("POST", "/models", url="noop.mar", initial_workers=1, synchronous="true")
    server.manage("POST", "/models", url="noop_2.mar", initial_workers=1, synchronous="true")
    server.register("probe", "probe:handle")
    server.manage("POST", "/models", url="demo.mar", model_name="idle")
    return server


def test_documents_are_what_the_server_says(server):
    """
    What is tested here is what clients get.
    """
    for listener, document in DOCUMENTS.items():
        assert server.ask(listener, "OPTIONS", "/").json == document


@pytest.mark.parametrize("listener", DOCUMENTS)
def test_documents_are_valid(api, listener):
    """
    By the rules of OpenAPI 3.0, so that generators of clients take them.
    """
    _, schemas = api

    schemas[listener].validate()


def test_undocumented_answer_would_be_noticed(server, api):
    """
    A net without knots catches nothing.
    """
    document = copy.deepcopy(DOCUMENTS["torchserve/management"])
    del document["paths"]["/models/{model_name}"]["delete"]["responses"]["404"]
    operation = schemathesis.openapi.from_dict(document)["/models/{model_name}"]["DELETE"]
    case = operation.Case(path_parameters={"model_name": "ghost"})
    session, _ = api

    response = case.call(base_url=server.addresses["management"], session=session)

    with pytest.raises(BaseExceptionGroup, match="Undocumented status code"):
        _check(case, response)


@pytest.mark.parametrize(("listener", "path", "method"), OPERATIONS)
def test_operation_answers_as_described(staffed, api, listener, path, method):
    """
    Whatever is asked: a described status, in its shape; a fault only if the contract lists it.
    """
    session, schemas = api
    operation = schemas[listener][path][method.upper()]
    modes = schemathesis.GenerationMode
    has_query = any(field["in"] == "query" for field in operation.definition.raw["parameters"])

    for mode in (modes.POSITIVE, modes.NEGATIVE) if has_query else (modes.POSITIVE,):

        @seed(zlib.crc32(f"{SEED} {operation.label} {mode}".encode()))
        @settings(
            max_examples=max(1, int(EXAMPLES * SHARES[listener.partition("/")[0]])),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), choice=st.randoms())
        def ask(case, choice):
            if operation.label in ("POST /models", *DELETES):
                _restock(staffed)
            _aim(case, choice)
            response = case.call(base_url=staffed.addresses[listener], session=session, timeout=30)
            _check(case, response)

        ask()


def _restock(server: Any) -> None:
    """Something to delete, and room for what is new."""
    for model in server.manage("GET", "/models").json["models"]:
        if model["modelName"] not in MODELS:
            server.manage("DELETE", f"/models/{model['modelName']}")
    for url in ("noop.mar", "noop_2.mar"):
        server.manage("POST", "/models", url=url)


def _aim(case: Any, choice: Any) -> None:
    """Let most requests hit something, and none cost more than it should."""
    path = case.path_parameters or {}
    if "model_name" in path and choice.random() < 0.8:
        path["model_name"] = choice.choice(MODELS)
    if "model_version" in path and choice.random() < 0.8:
        path["model_version"] = choice.choice(VERSIONS)
    for given_values in (case.query, case.body):
        if not isinstance(given_values, dict):
            continue
        if case.operation.label == "POST /models" and choice.random() < 0.8:
            given_values.setdefault("url", "")
        for name, good in GOOD.items():
            # Never any other handler: one that cannot load is an error in the log.
            if name in given_values and (name == "handler" or choice.random() < 0.9):
                given_values[name] = choice.choice(good)
        for name, most in MOST.items():
            if name in given_values:
                given_values[name] = _capped(given_values[name], most)


def _capped(value: Any, most: int) -> Any:
    if isinstance(value, list):
        return [_capped(item, most) for item in value]
    if re.fullmatch(r"[+-]?\d+(\.0*)?", str(value)) and float(value) > most:
        return most
    return value


def _check(case: Any, response: Any) -> None:
    checks = schemathesis.checks.CHECKS.get_by_names(
        [
            "status_code_conformance",
            "response_headers_conformance",
            "response_schema_conformance",
            # A prediction has the content type that its handler sets, or none.
            *(["content_type_conformance"] if "content-type" in response.headers else []),
        ]
    )
    case.validate_response(response, checks=checks)
    assert "x-request-id" in response.headers
    if response.status_code >= 500:
        document = response.json()
        if (response.status_code, document) == (503, {"ready": False}):
            return  # what `/health/ready` is asked for
        said = document["message"]
        assert any(
            status == response.status_code and re.fullmatch(text, said, re.DOTALL)
            for status, text in LISTED
        ), (response.status_code, said)
