"""Every row of contracts/torchserve.md 1.6 that can be met today, in its exact shape."""

from __future__ import annotations

import json
import zipfile

import pytest

pytestmark = pytest.mark.slow

JSON = "application/json"
NO_WORKER = (
    'Model "{name}"{version} has no worker to serve inference request. Please use scale workers '
    "API to add workers. If this is a sequence inference, please check if it is closed, or "
    "expired; or exceeds maxSequenceJobQueueSize"
)
NOT_FOUND = "Requested resource is not found, please refer to API document."
NOT_ALLOWED = "Requested method is not allowed, please refer to API document."


def check(answer, status, kind, message, *, said_by_client="", connection="close"):
    """The shape of 1.5, the text of 1.6, and nothing of ours in it."""
    assert answer.status == status, answer.text
    assert answer.header("content-type") == JSON
    assert answer.header("connection") == connection
    assert answer.header("x-request-id")
    document = answer.json
    assert [*document][:3] == ["code", "type", "message"]
    assert (document["code"], document["type"]) == (status, kind)
    if message is not None:
        assert document["message"] == message
    assert answer.text == json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    leaked = answer.text.replace(said_by_client, "") if said_by_client else answer.text
    assert not any(word in leaked for word in ("Traceback", 'File "', "/", ".py")), answer.text
    # Only a failed load says more, and that in a field of its own.
    assert set(document) <= {"code", "type", "message", "failure"}


@pytest.fixture
def does(server):
    server.register("m", "does:handle")

    def ask(**asked):
        return server.predict("m", json.dumps(asked), content_type=JSON)

    return ask


# -- routes and methods ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("listener", "path"),
    [
        ("inference", "/nothing"),
        ("inference", "/models"),
        ("inference", "/predictions"),
        ("management", "/nothing"),
        ("management", "/predictions/m"),
        ("management", "/models/m/1.0/nothing"),
        ("metrics", "/models"),
    ],
)
def test_unknown_route(server, listener, path):
    """
    404 ResourceNotFoundException; also what only another listener serves.
    """
    check(server.ask(listener, "GET", path), 404, "ResourceNotFoundException", NOT_FOUND)


@pytest.mark.parametrize(
    ("listener", "method", "path"),
    [
        ("inference", "GET", "/"),
        ("management", "POST", "/"),
        ("management", "PUT", "/models"),
        ("management", "DELETE", "/models"),
        ("management", "POST", "/models/m"),
        ("management", "PATCH", "/models/m/1.0"),
        ("management", "GET", "/models/m/1.0/set-default"),
        ("management", "DELETE", "/models/m/1.0/set-default"),
    ],
)
def test_wrong_method(server, listener, method, path):
    """
    405 MethodNotAllowedException without an Allow header.
    """
    answer = server.ask(listener, method, path)

    check(answer, 405, "MethodNotAllowedException", NOT_ALLOWED)
    assert answer.header("allow") is None


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * 9000 + b"\r\n\r\n",
        b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: h\r\nContent-Length: nine\r\n\r\n",
    ],
    ids=["line", "header", "target", "length"],
)
def test_malformed_http(server, request_bytes):
    """
    400 BadRequestException, and the connection ends.
    """
    with server.connect() as connection:
        connection.send(request_bytes)
        answer = connection.read_answer()

        check(answer, 400, "BadRequestException", "Invalid HTTP message.")
        assert connection.is_ended()


# -- models and versions ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("listener", "method", "path"),
    [
        ("inference", "POST", "/predictions/ghost"),
        ("inference", "POST", "/predictions/ghost/1.0"),
        ("management", "GET", "/models/ghost"),
        ("management", "GET", "/models/ghost/all"),
        ("management", "PUT", "/models/ghost?min_worker=1"),
        ("management", "DELETE", "/models/ghost"),
        ("management", "PUT", "/models/ghost/1.0/set-default"),
    ],
)
def test_unknown_model(server, listener, method, path):
    """
    404 ModelNotFoundException.
    """
    answer = server.ask(listener, method, path)

    check(answer, 404, "ModelNotFoundException", "Model not found: ghost")


@pytest.mark.parametrize(
    ("listener", "method", "path"),
    [
        ("inference", "POST", "/predictions/noop/9"),
        ("management", "GET", "/models/noop/9"),
        ("management", "PUT", "/models/noop/9?min_worker=1"),
        ("management", "DELETE", "/models/noop/9"),
    ],
)
def test_unknown_version(server, listener, method, path):
    """
    404 ModelVersionNotFoundException, with colons.
    """
    server.manage("POST", "/models", url="noop.mar")

    answer = server.ask(listener, method, path)

    text = "Model version: 9 does not exist for model: noop"
    check(answer, 404, "ModelVersionNotFoundException", text)


def test_set_default_to_an_unknown_version(server):
    """
    The same situation in other words: no colons.
    """
    server.manage("POST", "/models", url="noop.mar")

    answer = server.manage("PUT", "/models/noop/9/set-default")

    text = "Model version 9 does not exist for model noop"
    check(answer, 404, "ModelVersionNotFoundException", text)


def test_default_version_is_not_removed_while_others_exist(server):
    """
    403 InvalidModelVersionException; with and without naming it.
    """
    server.manage("POST", "/models", url="noop.mar")
    server.manage("POST", "/models", url="noop_2.mar")

    for path in ("/models/noop", "/models/noop/1.0"):
        answer = server.manage("DELETE", path)
        text = "Cannot remove default version for model noop"
        check(answer, 403, "InvalidModelVersionException", text)


def test_version_that_is_there_already(server):
    """
    409 ConflictStatusException.
    """
    server.manage("POST", "/models", url="noop.mar")

    answer = server.manage("POST", "/models", url="noop.mar")

    text = "Model version 1.0 is already registered for model noop"
    check(answer, 409, "ConflictStatusException", text)


# -- register --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "status", "kind", "message"),
    [
        ({}, 400, "BadRequestException", "Parameter url is required."),
        ({"url": ""}, 404, "ModelNotFoundException", "empty url"),
        (
            {"url": "../noop.mar"},
            404,
            "ModelNotFoundException",
            "Relative path is not allowed in url: ../noop.mar",
        ),
        (
            {"url": "http://example.com/m.mar"},
            404,
            "ModelNotFoundException",
            "Given URL http://example.com/m.mar does not match any allowed URL(s)",
        ),
        (
            {"url": "file:///etc/passwd"},
            404,
            "ModelNotFoundException",
            "Given URL file:///etc/passwd does not match any allowed URL(s)",
        ),
        ({"url": "x.mar"}, 404, "ModelNotFoundException", "Model not found at: x.mar"),
        (
            {"url": "damaged.mar"},
            500,
            "InternalServerException",
            "Failed to save model: damaged.mar",
        ),
        ({"url": "nameless.mar"}, 400, "InvalidModelException", "Model name is not defined."),
        ({"url": "unread.mar"}, 400, "InvalidModelException", "Failed to parse signature.json."),
        (
            {"url": "modelless.mar"},
            400,
            "InvalidModelException",
            "Missing Model entry in manifest file.",
        ),
        (
            {"url": "noop.mar", "runtime": "cobol"},
            400,
            "BadRequestException",
            "Invalid RuntimeType value: cobol",
        ),
        ({"handler": "noop:handle"}, 400, "BadRequestException", None),
        ({"url": "noop.mar", "model_name": "../x"}, 400, "BadRequestException", None),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_registration_that_cannot_be(server, flawed_archives, query, status, kind, message):
    """
    The rows about `url`, manifests and parameters; none of them leaves a model behind.
    """
    answer = server.manage("POST", "/models", **query)

    check(answer, status, kind, message, said_by_client=query.get("url") or query.get("model_name"))
    assert server.manage("GET", "/models").json["models"] == []


@pytest.fixture(scope="module")
def flawed_archives(model_store):
    manifests = {
        "nameless": '{"runtime": "python", "model": {"handler": "noop", "modelVersion": "1.0"}}',
        "unread": "{ this is not json",
        "modelless": '{"runtime": "python"}',
    }
    for name, manifest in manifests.items():
        with zipfile.ZipFile(model_store / f"{name}.mar", "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", manifest)


def test_download_that_fails(server):
    """
    400 DownloadArchiveException: the origin has no such file.
    """
    url = f"{server.origin.address}/mar_files/missing.mar"

    answer = server.manage("POST", "/models", url=url)

    text = f"Failed to download archive from: {url}"
    check(answer, 400, "DownloadArchiveException", text, said_by_client=url)


def test_malformed_json_on_register(server):
    """
    400, where the peer answers 500 with its parser's words.
    """
    answer = server.ask("management", "POST", "/models", b"{broken", content_type=JSON)

    check(answer, 400, "BadRequestException", "The request body is not valid JSON.")


def test_malformed_form(server):
    """
    2.3: 400 BadRequestException, where the peer answers 500.
    """
    server.register("m", "noop:handle")

    for content_type in ("multipart/form-data", "multipart/form-data; boundary=b"):
        answer = server.predict("m", b"--b\r\nnothing", content_type=content_type)
        check(answer, 400, "BadRequestException", None, said_by_client="multipart/form-data")


# -- scale -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("min_worker=2&max_worker=1", "max_worker cannot be less than min_worker."),
        ("max_worker=0", "max_worker cannot be less than min_worker."),
        ("min_worker=-1", None),
    ],
)
def test_impossible_scale(server, query, message):
    """
    400 BadRequestException; nothing is started or stopped.
    """
    server.register("m", "noop:handle")

    answer = server.manage("PUT", f"/models/m?{query}")

    check(answer, 400, "BadRequestException", message)
    assert len(server.workers("m")) == 1


# -- workers that are missing ----------------------------------------------------------


@pytest.mark.parametrize(("path", "version"), [("noop", ""), ("noop/1.0", ' Version 1.0"')])
def test_prediction_without_a_worker(server, path, version):
    """
    503 with the peer's stray quote when the path names the version.
    """
    server.manage("POST", "/models", url="noop.mar")

    answer = server.predict(path, b"x")

    text = NO_WORKER.format(name="noop", version=version)
    check(answer, 503, "ServiceUnavailableException", text)


# -- what handlers do ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"do": "raise"}, 503, "Prediction failed"),
        ({"do": "memory"}, 507, "Out of resources"),
        ({"do": "cuda"}, 507, "Out of resources"),
        ({"do": "raise-refusal", "message": "no", "code": 422}, 422, "no"),
        ({"do": "raise-refusal", "message": "too much", "code": 413}, 507, "too much"),
        ({"do": "no-list"}, 503, "Invalid model predict output"),
        ({"do": "wrong-length"}, 503, "number of batch response mismatched"),
        ({"do": "unsupported"}, 503, "Unsupported model output data type."),
        ({"do": "big", "bytes": 6_553_501}, 500, "Worker died."),
        ({"do": "exit"}, 500, "Worker died."),
        ({"do": "kill-self"}, 507, "Worker died."),
    ],
    ids=lambda value: value.get("do") if isinstance(value, dict) else "",
)
def test_what_a_handler_does_wrong(does, asked, status, message):
    """
    The handler rows; the reason is in the model's log alone, and the next request is answered.
    """
    answer = does(**asked)

    check(answer, status, "InternalServerException", message)
    assert does(do="ok").body == b"OK"


# -- settings --------------------------------------------------------------------------


def test_model_api_that_is_switched_off(start_server):
    """
    405 for register and unregister; describe, scale, list, set-default stay (3.11).
    """
    server = start_server("--enable-model-api", "false", "--load-models", "noop.mar")

    for method, path in (("POST", "/models?url=noop.mar"), ("DELETE", "/models/noop")):
        answer = server.manage(method, path)
        check(answer, 405, "MethodNotAllowedException", NOT_ALLOWED)
    assert server.describe("noop")["loadedAtStartup"] is True
    assert server.manage("PUT", "/models/noop?min_worker=1&synchronous=true").status == 200
    assert server.predict("noop").body == b"OK"


def test_full_queue(start_server, until):
    """
    The very text of "no worker", with Retry-After; what was accepted is answered.
    """
    server = start_server("--job-queue-size", "1")
    server.register("m", "does:handle")
    gate = server.gate("full")
    asked = server.later(server.predict, "m", '{"gate": "full"}', content_type=JSON)
    gate.wait_reached()

    more = [server.later(server.predict, "m", "{}", content_type=JSON) for _ in range(6)]
    done = until(lambda: [each for each in more if each.is_answered][4:], "five are refused")
    refused = done[0].answer()
    gate.let_go()

    check(
        refused,
        503,
        "ServiceUnavailableException",
        NO_WORKER.format(name="m", version=""),
        connection="keep-alive",
    )
    assert refused.header("retry-after") == "1"
    assert asked.answer().status == 200
    assert sorted(each.answer().status for each in more) == [200] + [503] * 5
