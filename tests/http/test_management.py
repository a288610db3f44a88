"""The management API: contracts/torchserve.md section 3, A2-A5, and the page's curl lines."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.errors import (
    ArchiveNotFound,
    ArchiveUnreadable,
    ArchiveUrlEmpty,
    ArchiveUrlNotAllowed,
    ArchiveUrlRelative,
    DefaultVersionInUse,
    DownloadFailed,
    LoadFailed,
    LoadOutOfMemory,
    ManifestInvalid,
    ModelNotFound,
    ModelStoreMissing,
    NotEnoughDevices,
    RuntimeInvalid,
    UnregisterTimeout,
    VersionExists,
    VersionNotFound,
)

JSON = (("Content-Type", "application/json"),)
PROCESSING = b'{\n  "status": "Processing worker updates..."\n}\n'
PARTIAL = b'{\n  "status": "Workers scaling in progress..."\n}\n'
NOT_ALLOWED = {
    "code": 405,
    "type": "MethodNotAllowedException",
    "message": "Requested method is not allowed, please refer to API document.",
}
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


@pytest.fixture
def manage(frontend, supervisor):
    """Send a management request; the verb answers `outcome`, or raises it."""

    def send(method: str, target: str, verb: str, outcome: Any, *rest: Any):
        def answer(arguments: dict[str, Any]) -> dict[str, Any]:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        supervisor.verbs[verb] = answer
        return frontend.request("management", method, target, *rest)

    return send


def _registered(outcome: str, workers: int = 0) -> dict[str, Any]:
    return {"model": "demo", "version": "1.0", "workers": workers, "outcome": outcome}


# -- register -----------------------------------------------------------------


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


INTERNAL = "InternalServerException"
NOT_FOUND = "ModelNotFoundException"
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


# -- scale --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "outcome", "status", "body"),
    [
        ("/models/demo?min_worker=3", "scheduled", 202, PROCESSING),
        (
            "/models/demo?min_worker=3&synchronous=true",
            "ready",
            200,
            b'{\n  "status": "Workers scaled to 3 for model: demo"\n}\n',
        ),
        (
            "/models/demo/2.0?min_worker=3&synchronous=true",
            "ready",
            200,
            b'{\n  "status": "Workers scaled to 3 for model: demo, version: 2.0"\n}\n',
        ),
        (
            "/models/demo?min_worker=3&synchronous=true&model_version=2.0",
            "ready",
            200,
            b'{\n  "status": "Workers scaled to 3 for model: demo, version: 2.0"\n}\n',
        ),
        ("/models/demo?min_worker=3&synchronous=true", "partial", 206, PARTIAL),
    ],
)
def test_scale_outcomes(manage, target, outcome, status, body):
    """
    The table of 3.5 and the page's examples (A4).
    """
    answer = manage("PUT", target, "scale", {"outcome": outcome, "min_workers": 3})

    assert (answer.status, answer.body) == (status, body)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (1, 1, None)),
        ("min_worker=2", (2, 2, None)),
        ("min_worker=0&max_worker=0&timeout=0", (0, 0, 0.0)),
        ("max_worker=4&timeout=15", (1, 4, 15.0)),
        ("min_worker=2&timeout=-1", (2, 2, None)),
    ],
)
def test_scale_reads_counts_and_the_time_to_drain(manage, supervisor, query, expected):
    """
    0 kills now, -1 waits for ever: seconds and None inside (the page, contracts/README).
    """
    manage("PUT", f"/models/demo?{query}", "scale", {"outcome": "scheduled", "min_workers": 1})

    arguments = supervisor.calls[-1][1]
    found = (arguments["min_workers"], arguments["max_workers"], arguments["drain_timeout_s"])
    assert found == expected
    assert arguments["synchronous"] is False
    assert (arguments["model"], arguments["version"]) == ("demo", None)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("max_worker=0", "max_worker cannot be less than min_worker."),
        ("min_worker=3&max_worker=2", "max_worker cannot be less than min_worker."),
        ("min_worker=-1", "min_worker cannot be negative."),
    ],
)
def test_scale_refuses_counts_that_contradict(manage, supervisor, query, message):
    """
    400 before anything is touched (1.6).
    """
    answer = manage("PUT", f"/models/demo?{query}", "scale", {})

    assert answer.json == {"code": 400, "type": "BadRequestException", "message": message}
    assert supervisor.calls == []


@pytest.mark.parametrize(("path", "shown"), [("/models/m", "null"), ("/models/m/1.0", "1.0")])
def test_failed_scale_names_the_version_as_the_request_did(manage, path, shown):
    """
    `version: null` is the peer's, and clients compare texts (1.6).
    """
    answer = manage(
        "PUT", f"{path}?synchronous=true", "scale", LoadFailed(model="m", version="1.0")
    )

    assert answer.status == 500
    assert answer.json["message"] == f"Failed to start workers for model m version: {shown}"


# -- describe -----------------------------------------------------------------


def _record(**changes: Any) -> dict[str, Any]:
    return {
        "model": "demo",
        "version": "1.0",
        "url": "demo.mar",
        "engine": "Torch",
        "runtime": "python",
        "min_workers": 2,
        "max_workers": 2,
        "batch_size": 1,
        "max_batch_delay_s": 0.1,
        "response_timeout_s": 120.0,
        "startup_timeout_s": 120.0,
        "max_retry_timeout_s": 300.0,
        "client_timeout_s": 0.0,
        "parallel_type": "",
        "parallel_level": 0,
        "device_type": "cpu",
        "device_ids": [],
        "is_default": True,
        "loaded_at_startup": False,
        "status": "Healthy",
        "failure": None,
        "workers": [
            {
                "id": 9000,
                "started_at": 1727876693.034,
                "state": "ready",
                "memory_bytes": 0,
                "pid": 4711,
                "gpu_id": None,
                "gpu_usage": "N/A",
                "restarts": 0,
            }
        ],
        "queue": {"capacity": 100, "pending": 0},
        **changes,
    }


DESCRIBED = """[
  {
    "modelName": "demo",
    "modelVersion": "1.0",
    "modelUrl": "demo.mar",
    "engine": "Torch",
    "runtime": "python",
    "minWorkers": 2,
    "maxWorkers": 2,
    "batchSize": 1,
    "maxBatchDelay": 100,
    "responseTimeout": 120,
    "startupTimeout": 120,
    "maxRetryTimeoutInSec": 300,
    "clientTimeoutInMills": 0,
    "parallelType": "",
    "parallelLevel": 0,
    "deviceType": "cpu",
    "continuousBatching": false,
    "useJobTicket": false,
    "useVenv": false,
    "stateful": false,
    "sequenceMaxIdleMSec": 0,
    "sequenceTimeoutMSec": 0,
    "maxNumSequence": 0,
    "maxSequenceJobQueueSize": 0,
    "status": "Healthy",
    "loadedAtStartup": false,
    "workers": [
      {
        "id": "9000",
        "startTime": "2024-10-02T13:44:53.034Z",
        "status": "READY",
        "memoryUsage": 0,
        "pid": 4711,
        "gpu": false,
        "gpuUsage": "N/A"
      }
    ],
    "jobQueueStatus": {
      "remainingCapacity": 100,
      "pendingRequests": 0
    }
  }
]
"""


def test_describe_is_an_array_in_the_peers_order(manage):
    """
    Byte for byte A5, with the page's `engine` and `status`.
    """
    answer = manage("GET", "/models/demo", "describe", {"versions": [_record()]})

    assert answer.body.decode() == DESCRIBED


@pytest.mark.parametrize(
    ("path", "version", "is_all"),
    [
        ("/models/demo", None, False),
        ("/models/demo/2.0", "2.0", False),
        ("/models/demo/all", None, True),
    ],
)
def test_describe_asks_for_default_one_or_all(manage, supervisor, path, version, is_all):
    """
    `all` is a word, not a version (3.6).
    """
    answer = manage("GET", path, "describe", {"versions": []})

    assert answer.body == b"[]\n"
    assert supervisor.calls == [("describe", {"model": "demo", "version": version, "all": is_all})]


def test_describe_shows_devices_worker_states_and_failures(manage):
    """
    Fields that only sometimes appear.
    """
    worker = {**_record()["workers"][0], "state": "loading", "gpu_id": 1, "gpu_usage": "gpuId::1"}
    failure = {"message": "", "last_line": "ValueError: é", "log": "m.log"}
    record = _record(device_ids=[1], device_type="gpu", workers=[worker], failure=failure)

    answer = manage("GET", "/models/demo", "describe", {"versions": [record]})

    (shown,) = answer.json
    assert shown["deviceIds"] == [1]
    assert shown["workers"][0]["status"] == "UNLOADING"
    assert (shown["workers"][0]["gpu"], shown["workers"][0]["gpuUsage"]) == (True, "gpuId::1")
    assert shown["failure"] == {"lastLine": "ValueError: é", "log": "m.log"}
    assert "é".encode() in answer.body


# -- list, unregister, set-default --------------------------------------------


@pytest.mark.parametrize(
    ("query", "asked", "token"),
    [
        ("", (100, 0), None),
        ("?limit=2", (2, 0), "2"),
        ("?limit=2&next_page_token=2", (2, 2), "4"),
        ("?limit=2&next_page_token=3", (2, 3), None),
        ("?limit=0", (0, 0), "0"),
        ("?limit=-1", (100, 0), None),
        ("?limit=101&next_page_token=-4", (100, 0), None),
    ],
)
def test_list_pages_as_the_peer_does(manage, supervisor, query, asked, token):
    """
    The token is there when offset + limit <= total, even at the very end (3.8).
    """
    outcome = {"total": 4, "models": [{"model": "noop", "version": "1.0", "url": "noop-v1.0"}]}

    answer = manage("GET", f"/models{query}", "list", outcome)

    assert supervisor.calls == [("list", {"limit": asked[0], "offset": asked[1]})]
    expected = {"models": [{"modelName": "noop", "modelUrl": "noop-v1.0"}]}
    assert answer.json == ({"nextPageToken": token, **expected} if token else expected)
    assert next(iter(answer.json)) == ("nextPageToken" if token else "models")


def test_unregister_never_names_the_version(manage, supervisor):
    """
    The page's text (3.7).
    """
    outcome = {"model": "noop", "version": "1.0"}

    answer = manage("DELETE", "/models/noop/1.0", "unregister", outcome)

    assert (answer.status, answer.body) == (
        200,
        b'{\n  "status": "Model \\"noop\\" unregistered"\n}\n',
    )
    assert supervisor.calls == [("unregister", {"model": "noop", "version": "1.0"})]


@pytest.mark.parametrize(
    ("error", "status", "kind", "message"),
    [
        (ModelNotFound(model="m"), 404, NOT_FOUND, "Model not found: m"),
        (
            DefaultVersionInUse(model="m", version="1.0"),
            403,
            "InvalidModelVersionException",
            "Cannot remove default version for model m",
        ),
        (
            UnregisterTimeout(model="m"),
            408,
            "RequestTimeoutException",
            "Timed out while cleaning resources: m",
        ),
    ],
)
def test_unregister_error_has_its_exact_shape(manage, error, status, kind, message):
    """
    The rows of 1.6.
    """
    answer = manage("DELETE", "/models/m", "unregister", error)

    assert answer.json == {"code": status, "type": kind, "message": message}


def test_set_default(manage, supervisor):
    """
    3.9.
    """
    outcome = {"model": "noop", "version": "2.0"}

    answer = manage("PUT", "/models/noop/2.0/set-default", "set_default", outcome)

    assert answer.json == {
        "status": 'Default version successfully updated for model "noop" to "2.0"'
    }
    assert supervisor.calls == [("set_default", {"model": "noop", "version": "2.0"})]


def test_set_default_to_an_unknown_version_has_its_own_text(manage):
    """
    Without the colons of every other place (1.6).
    """
    error = VersionNotFound(model="noop", version="9")

    answer = manage("PUT", "/models/noop/9/set-default", "set_default", error)

    assert answer.status == 404
    assert answer.json["message"] == "Model version 9 does not exist for model noop"


# -- methods, health, descriptions --------------------------------------------


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("DELETE", "/models"),
        ("POST", "/models/m"),
        ("PATCH", "/models/m/1.0"),
        ("GET", "/models/m/1.0/set-default"),
        ("DELETE", "/models/m/1.0/set-default"),
        ("GET", "/"),
        ("OPTIONS", "/models"),
        ("PROPFIND", "/models"),
    ],
)
def test_wrong_method_is_a_405_without_allow(frontend, method, target):
    """
    Management routes check the method; set-default is for PUT alone (1.6, 3.9).
    """
    answer = frontend.request("management", method, target)

    assert (answer.status, answer.json) == (405, NOT_ALLOWED)
    assert answer.header("allow") is None


def test_predictions_are_not_served_on_management(frontend, echo):
    """
    A listener serves its roles and nothing else.
    """
    answer = frontend.request("management", "POST", f"/predictions/{echo}")

    assert answer.json["type"] == "ResourceNotFoundException"


def test_ping_says_healthy_byte_for_byte(frontend, supervisor):
    """
    A1, the whole answer.
    """
    supervisor.verbs["health"] = lambda arguments: {"is_healthy": True, "models": {}}

    answer = frontend.request("inference", "GET", "/ping")

    assert answer.status_line == "HTTP/1.1 200 OK"
    assert [pair for pair in answer.headers if pair[0] != "x-request-id"] == [
        ("content-type", "application/json"),
        ("Pragma", "no-cache"),
        ("Cache-Control", "no-cache; no-store, must-revalidate, private"),
        ("Expires", "Thu, 01 Jan 1970 00:00:00 UTC"),
        ("content-length", "26"),
        ("connection", "keep-alive"),
    ]
    assert answer.names[1] == "x-request-id"
    assert answer.body == b'{\n  "status": "Healthy"\n}\n'


def test_ping_unhealthy_is_a_500_with_a_status(frontend, supervisor):
    """
    Not the error shape (2.2).
    """
    supervisor.verbs["health"] = lambda arguments: {"is_healthy": False, "models": {"m": False}}

    answer = frontend.request("inference", "GET", "/ping")

    assert (answer.status, answer.json) == (500, {"status": "Unhealthy"})


def test_description_lists_what_is_served(frontend):
    """
    Titles, paths and operationIds are the peer's (2.9).
    """
    found = {}
    for role in ("inference", "management", "metrics"):
        document = frontend.request(role, "OPTIONS", "/").json
        assert document["openapi"] == "3.0.1"
        assert document["info"]["title"] == "TorchServe APIs"
        found[role] = {
            (path, method): described["operationId"]
            for path, methods in document["paths"].items()
            for method, described in methods.items()
        }

    common = {("/", "options"): "apiDescription", ("/api-description", "get"): "api-description"}
    version = "/models/{model_name}/{model_version}"
    assert found["inference"] == {
        **common,
        ("/ping", "get"): "ping",
        ("/predictions/{model_name}", "post"): "predictions",
        ("/predictions/{model_name}/{model_version}", "post"): "version_predictions",
    }
    assert found["management"] == {
        **common,
        ("/models", "get"): "listModels",
        ("/models", "post"): "registerModel",
        ("/models/{model_name}", "get"): "describeModel",
        ("/models/{model_name}", "put"): "setAutoScale",
        ("/models/{model_name}", "delete"): "unregisterModel",
        (version, "get"): "version_describeModel",
        (version, "put"): "version_setAutoScale",
        (version, "delete"): "version_unregisterModel",
        (f"{version}/set-default", "put"): "setDefault",
    }
    assert found["metrics"] == {("/metrics", "get"): "metrics"}


def test_described_operations_are_answered(frontend, supervisor):
    """
    A document that promises a 404 is worse than none.
    """
    for verb in ("health", "list", "register", "describe", "scale", "unregister", "set_default"):
        supervisor.verbs[verb] = lambda arguments: (_ for _ in ()).throw(ModelNotFound(model="m"))
    supervisor.verbs["statistics"] = lambda arguments: {}
    for role in ("inference", "management", "metrics"):
        for path, methods in frontend.request(role, "OPTIONS", "/").json["paths"].items():
            for method in methods:
                target = path.replace("{model_name}", "m").replace("{model_version}", "1")

                answer = frontend.request(role, method.upper(), target)

                kind = answer.json.get("type") if answer.status >= 400 else None
                assert kind not in ("ResourceNotFoundException", "MethodNotAllowedException")


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_api_description_takes_any_method(frontend, method):
    """
    2.1.
    """
    answer = frontend.request("management", method, "/api-description")

    assert answer.json == frontend.request("management", "OPTIONS", "/").json


@pytest.mark.parametrize(
    ("role", "target", "title", "path"),
    [
        ("inference", "/predictions/m", "RESTful API for: m", "/predictions/m"),
        ("management", "/models/m", "RESTful Management API for: m", "/models/m"),
    ],
)
def test_a_model_has_a_description_of_its_own(frontend, supervisor, role, target, title, path):
    """
    2.9, with the path that is really served.
    """
    supervisor.verbs["describe"] = lambda arguments: {"versions": []}

    document = frontend.request(role, "OPTIONS", target).json

    assert document["info"] == {"title": title, "version": "1.0.0"}
    assert path in document["paths"]


def test_an_unknown_model_has_no_description(manage):
    """
    404 as everywhere.
    """
    answer = manage("OPTIONS", "/models/m", "describe", ModelNotFound(model="m"))

    assert answer.json["message"] == "Model not found: m"


def test_metrics_are_numbers_as_text(frontend, supervisor):
    """
    Empty while there are none.
    """
    supervisor.verbs["statistics"] = lambda arguments: {}
    empty = frontend.request("metrics", "GET", "/metrics")
    supervisor.verbs["statistics"] = lambda arguments: {"jobs": 7, "busy-share": 0.5, "x": "no"}
    some = frontend.request("metrics", "GET", "/metrics")

    assert (empty.status, empty.body) == (200, b"")
    assert some.body == b"stoker_busy_share 0.5\nstoker_jobs 7\n"
    assert some.header("content-type").startswith("text/plain")


def test_bug_of_ours_is_a_500_that_gives_nothing_away(frontend, supervisor, capfd):
    """
    The traceback is for the log, under the request id (issue 2, point 10).
    """
    supervisor.verbs["list"] = lambda arguments: {"nonsense": True}

    answer = frontend.request("management", "GET", "/models")

    assert (answer.status, answer.json["type"]) == (500, "InternalServerException")
    assert b"Traceback" not in answer.body
    assert b"nonsense" not in answer.body
    assert b"KeyError" not in answer.body
    logged = capfd.readouterr().err
    assert answer.header("x-request-id") in logged
    assert "KeyError" in logged
