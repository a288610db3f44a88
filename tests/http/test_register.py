"""Registering over HTTP: contracts/torchserve.md 3.1, 1.6, A2, A10."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.errors import (
    ArchiveNotFound,
    ArchiveUnreadable,
    ArchiveUrlEmpty,
    ArchiveUrlNotAllowed,
    ArchiveUrlRelative,
    DownloadFailed,
    LoadFailed,
    LoadOutOfMemory,
    ManifestInvalid,
    ModelStoreMissing,
    NotEnoughDevices,
    RuntimeInvalid,
    VersionExists,
)

JSON = (("Content-Type", "application/json"),)
PROCESSING = b'{\n  "status": "Processing worker updates..."\n}\n'
PARTIAL = b'{\n  "status": "Workers scaling in progress..."\n}\n'
NOT_ALLOWED = {
    "code": 405,
    "type": "MethodNotAllowedException",
    "message": "Requested method is not allowed, please refer to API document.",
}
INTERNAL = "InternalServerException"
NOT_FOUND = "ModelNotFoundException"
UNSET_REGISTER = {
    "url": "m.mar",
    "model": None,
    "version": None,
    "handler": None,
    "runtime": None,
    "batch_size": None,
    "max_batch_delay_s": None,
    "initial_workers": 0,
    "synchronous": False,
    "response_timeout_s": None,
    "startup_timeout_s": None,
    "s3_sse_kms": False,
}


def _registered(outcome: str, workers: int = 0) -> dict[str, Any]:
    return {"model": "demo", "version": "1.0", "workers": workers, "outcome": outcome}


def test_register_without_workers_is_200(manage, supervisor):
    """
    The default outcome, byte for byte (A2).
    """
    answer = manage("POST", "/models?url=m.mar", "register", _registered("registered"))

    assert answer.status_line == "HTTP/1.1 200 OK"
    assert answer.body == (
        b'{\n  "status": "Model \\"demo\\" Version: 1.0 registered with 0 initial workers. '
        b'Use scale workers API to add workers for the model."\n}\n'
    )
    assert answer.names == [
        "content-type",
        "x-request-id",
        "Pragma",
        "Cache-Control",
        "Expires",
        "content-length",
        "connection",
    ]
    assert answer.header("content-type") == "application/json"
    assert answer.header("connection") == "keep-alive"
    assert supervisor.calls == [("register", UNSET_REGISTER)]


@pytest.mark.parametrize(
    ("outcome", "status", "body"),
    [
        (_registered("scheduled"), 202, PROCESSING),
        (_registered("partial"), 206, PARTIAL),
        (
            _registered("ready", 2),
            200,
            b'{\n  "status": "Model \\"demo\\" Version: 1.0 registered with 2 initial '
            b'workers"\n}\n',
        ),
    ],
)
def test_register_outcomes(manage, outcome, status, body):
    """
    The table of 3.1.
    """
    answer = manage("POST", "/models?url=m.mar&initial_workers=1", "register", outcome)

    assert (answer.status, answer.body) == (status, body)


def test_register_reads_every_parameter_in_its_unit(manage, supervisor):
    """
    Milliseconds become seconds at the door.
    """
    query = (
        "url=https%3A%2F%2Fa%2Fm.mar&model_name=m&model_version=2.0&handler=mod:fn&runtime=PYTHON"
        "&batch_size=8&max_batch_delay=50&initial_workers=2&synchronous=TRUE&response_timeout=60"
        "&startup_timeout=90&s3_sse_kms=true&unknown=1"
    )

    manage("POST", f"/models?{query}", "register", _registered("ready", 2))

    assert supervisor.calls[-1][1] == {
        "url": "https://a/m.mar",
        "model": "m",
        "version": "2.0",
        "handler": "mod:fn",
        "runtime": "PYTHON",
        "batch_size": 8,
        "max_batch_delay_s": 0.05,
        "initial_workers": 2,
        "synchronous": True,
        "response_timeout_s": 60.0,
        "startup_timeout_s": 90.0,
        "s3_sse_kms": True,
    }


def test_register_reads_a_json_body_and_then_no_query(manage, supervisor):
    """
    Same names; numbers may be numbers (3.1).
    """
    body = b'{"url": "m.mar", "batch_size": 4, "initial_workers": "3", "synchronous": true}'

    manage("POST", "/models?batch_size=9", "register", _registered("ready"), body, JSON)

    expected = {**UNSET_REGISTER, "batch_size": 4, "initial_workers": 3, "synchronous": True}
    assert supervisor.calls[-1][1] == expected


@pytest.mark.parametrize("workers", ["0", "-1", "-2147483648"])
def test_less_than_no_workers_is_none(manage, supervisor, workers):
    """
    3.1.
    """
    query = f"url=m.mar&initial_workers={workers}"

    manage("POST", f"/models?{query}", "register", _registered("registered"))

    assert supervisor.calls[-1][1] == UNSET_REGISTER


def test_register_ignores_a_body_of_any_other_type(manage, supervisor):
    """
    Exactly `application/json`, as in the peer (3.1).
    """
    headers = (("Content-Type", "application/json; charset=utf-8"),)

    manage("POST", "/models?url=m.mar", "register", _registered("registered"), b"{}", headers)

    assert supervisor.calls[-1][1] == UNSET_REGISTER


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"\xff", b"[" * 100_000])
def test_malformed_json_is_a_400(manage, body):
    """
    Where the peer answers 500 (1.6).
    """
    answer = manage("POST", "/models", "register", {}, body, JSON)

    assert (answer.status, answer.json["type"]) == (400, "BadRequestException")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "Parameter url is required."),
        ("model_name=m", "Parameter url is required."),
        ("handler=mod:fn", "Parameter model_name is required."),
    ],
)
def test_register_needs_an_archive_or_a_handler_with_a_name(manage, query, message):
    """
    A handler on PYTHONPATH needs no archive, but then a name.
    """
    answer = manage("POST", f"/models?{query}", "register", {})

    expected = {"code": 400, "type": "BadRequestException", "message": message}
    assert (answer.status, answer.json) == (400, expected)


@pytest.mark.parametrize("name", ["..", "a/b", "-a", "%20", "a" * 129])
def test_register_refuses_a_name_that_is_not_one(manage, supervisor, name):
    """
    Names travel in paths and titles (3.1).
    """
    answer = manage("POST", f"/models?url=m.mar&model_name={name}", "register", {})

    assert (answer.status, answer.json["type"]) == (400, "BadRequestException")
    assert supervisor.calls == []


def test_first_of_equal_parameters_wins_and_semicolons_separate(manage, supervisor):
    """
    As old clients are used to (1.2).
    """
    query = "url=m.mar;batch_size=2&batch_size=3"

    manage("POST", f"/models?{query}", "register", _registered("registered"))

    assert supervisor.calls[-1][1] == {**UNSET_REGISTER, "batch_size": 2}


def test_value_that_is_not_understood_becomes_the_default_and_is_said(manage, supervisor):
    """
    As the peer, but not silently (contracts/README, last row).
    """
    query = "url=m.mar&batch_size=x&max_batch_delay=-5&synchronous=yes&response_timeout=99999999999"

    answer = manage("POST", f"/models?{query}", "register", _registered("registered"))

    assert answer.status == 200
    assert answer.header("x-stoker-warning") == (
        "batch_size='x' is not understood, using unset; "
        "max_batch_delay='-5' is not understood, using unset; "
        "synchronous='yes' is not understood, using false; "
        "response_timeout='99999999999' is not understood, using unset"
    )
    assert supervisor.calls[-1][1] == UNSET_REGISTER


def test_strict_parameters_refuse_what_is_not_understood(start_frontend):
    """
    For those who would rather know at once.
    """
    running = start_frontend(strict_parameters=True)

    answer = running.request("management", "POST", "/models?url=m.mar&batch_size=x")

    assert answer.status == 400
    assert answer.json["message"] == "Parameter batch_size='x' is not understood."


def test_defaults_of_register_are_settings(start_frontend, supervisor):
    """
    default_workers_per_model and default_synchronous (3.1, contracts/README).
    """
    running = start_frontend(default_workers_per_model=3, default_synchronous=True)
    supervisor.verbs["register"] = lambda arguments: _registered("ready", 3)

    running.request("management", "POST", "/models?url=m.mar")

    expected = {**UNSET_REGISTER, "initial_workers": 3, "synchronous": True}
    assert supervisor.calls[-1][1] == expected


def test_switched_off_model_api_refuses_register_and_unregister(start_frontend, supervisor):
    """
    Scaling, describing and listing stay (3.11, A10).
    """
    running = start_frontend(enable_model_api=False)
    supervisor.verbs["list"] = lambda arguments: {"total": 0, "models": []}

    refused = [
        running.request("management", "POST", "/models?url=m.mar"),
        running.request("management", "DELETE", "/models/m"),
        running.request("management", "DELETE", "/models/m/1.0"),
    ]

    assert [answer.json for answer in refused] == [NOT_ALLOWED] * 3
    assert running.request("management", "GET", "/models").status == 200


REGISTER_ERRORS = [
    (ArchiveUrlEmpty(url=""), 404, NOT_FOUND, "empty url"),
    (
        ArchiveUrlRelative(url="../a"),
        404,
        NOT_FOUND,
        "Relative path is not allowed in url: ../a",
    ),
    (
        ArchiveUrlNotAllowed(url="http://a/b.mar"),
        404,
        NOT_FOUND,
        "Given URL http://a/b.mar does not match any allowed URL(s)",
    ),
    (ArchiveNotFound(url="a.mar"), 404, NOT_FOUND, "Model not found at: a.mar"),
    (ModelStoreMissing(), 404, NOT_FOUND, "Model store has not been configured."),
    (
        DownloadFailed(url="http://a/b.mar"),
        400,
        "DownloadArchiveException",
        "Failed to download archive from: http://a/b.mar",
    ),
    (ArchiveUnreadable(url="a.mar"), 500, INTERNAL, "Failed to save model: a.mar"),
    (
        ManifestInvalid("Runtime is not defined or invalid."),
        400,
        "InvalidModelException",
        "Runtime is not defined or invalid.",
    ),
    (
        RuntimeInvalid(runtime="java"),
        400,
        "BadRequestException",
        "Invalid RuntimeType value: java",
    ),
    (
        VersionExists(model="m", version="1.0"),
        409,
        "ConflictStatusException",
        "Model version 1.0 is already registered for model m",
    ),
    (
        NotEnoughDevices(model="m", wanted=4),
        500,
        "WorkerInitializationException",
        "No enough gpu devices for model:m parallelLevel:4",
    ),
    (
        LoadOutOfMemory(model="m", version="1.0"),
        507,
        INTERNAL,
        "Failed to start workers for model m version: 1.0",
    ),
]


@pytest.mark.parametrize(
    ("error", "status", "kind", "message"), REGISTER_ERRORS, ids=lambda value: str(value)[:24]
)
def test_register_error_has_its_exact_shape(manage, error, status, kind, message):
    """
    The rows of 1.6.
    """
    answer = manage("POST", "/models?url=m.mar", "register", error)

    assert answer.json == {"code": status, "type": kind, "message": message}
    assert answer.status == status


def test_failed_load_says_why_and_where_to_read_on(manage):
    """
    The peer's text stays exact; the reason stands beside it.
    """
    error = LoadFailed(
        model="m", version="1.0", last_line="ImportError: no x", log="m-1.0-9000.log"
    )

    answer = manage("POST", "/models?url=m.mar&synchronous=true", "register", error)

    assert answer.json == {
        "code": 500,
        "type": INTERNAL,
        "message": "Failed to start workers for model m version: 1.0",
        "failure": {"lastLine": "ImportError: no x", "log": "m-1.0-9000.log"},
    }
