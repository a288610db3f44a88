"""The MMS dialect over a made-up supervisor: contracts/mms.md 3, 5, 6, 7."""

from __future__ import annotations

import re

import pytest

from stoker.errors import ModelNotFound

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOTHING = {"versions": []}


@pytest.fixture(scope="module")
def mms_of_module(start_for_module):
    return start_for_module(dialect="mms")


@pytest.fixture
def mms(mms_of_module, supervisor):
    """A frontend whose listeners speak MMS, and a clean supervisor."""
    mms_of_module.frontend._lanes.closed.clear()
    return mms_of_module


@pytest.fixture
def asked(supervisor):
    """Arguments of the calls that were made, by verb; each verb answers as told."""
    calls = {}

    def answers(verb, outcome):
        def answer(arguments):
            calls.setdefault(verb, []).append(arguments)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        supervisor.verbs[verb] = answer
        return calls

    return answers


# -- management ------------------------------------------------------------------------


def test_register_says_the_pages_words(mms, asked):
    """
    No full stop at the end (6.1).
    """
    calls = asked("register", {"outcome": "registered", "model": "n", "version": "1.0"})

    answer = mms.request("management", "POST", "/models?url=n.mar")

    assert (answer.status, answer.json) == (200, {"status": 'Model "n" registered'})
    assert answer.body.decode() == '{\n  "status": "Model \\"n\\" registered"\n}\n'
    (arguments,) = calls["register"]
    assert arguments["takes_free_name"] is True
    assert arguments["synchronous"] is False
    assert arguments["response_timeout_s"] is None


@pytest.mark.parametrize(
    ("outcome", "line", "said"),
    [
        ("scheduled", "HTTP/1.1 202 Accepted", "Worker updated"),
        ("ready", "HTTP/1.1 200 OK", "Worker scaled"),
        ("partial", "HTTP/1.1 210 Partial Success", "Workers scaling in progress..."),
    ],
)
@pytest.mark.parametrize("verb", ["register", "scale"])
def test_what_became_of_workers_has_a_status_and_a_text(mms, asked, verb, outcome, line, said):
    """
    6.1, 6.2 in the page's words; 210 is the peer's own.
    """
    asked(verb, {"outcome": outcome, "model": "n", "version": "1.0", "min_workers": 1})
    method, target = ("POST", "/models?url=n.mar") if verb == "register" else ("PUT", "/models/n")
    client = mms.client("management")
    client.send(f"{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())

    status_line, _ = client.take_head()

    assert status_line == line
    client.close()
    assert mms.request("management", method, target).json == {"status": said}


def test_register_reads_a_json_body_leniently(mms, asked):
    """
    Single quotes, and numbers and booleans as texts; the query is then ignored (6.1).
    """
    calls = asked("register", {"outcome": "scheduled"})
    body = b"""{'url': "it's.mar", 'batch_size': '4', 'max_batch_delay': 20,
                'synchronous': 'true', "initial_workers": "2", 'preload_model': 'true',
                'response_timeout': 7}"""
    headers = [("content-type", "application/json")]

    answer = mms.request("management", "POST", "/models?batch_size=9", body, headers)

    assert answer.status == 202
    (arguments,) = calls["register"]
    assert arguments["url"] == "it's.mar"
    assert arguments["batch_size"] == 4
    assert arguments["max_batch_delay_s"] == 0.02
    assert arguments["synchronous"] is True
    assert arguments["initial_workers"] == 2
    assert arguments["preload"] == "on"
    # Seconds, in a query as in a body (contracts/README.md).
    assert arguments["response_timeout_s"] == 7.0


def test_scale_hands_gpus_and_the_time_to_drain_over(mms, asked):
    """
    What the peer ignored works as its page says.
    """
    calls = asked("scale", {"outcome": "scheduled", "min_workers": 3})

    mms.request("management", "PUT", "/models/n?min_worker=3&number_gpu=2&timeout=0")
    mms.request("management", "PUT", "/models/n")

    assert calls["scale"] == [
        {
            "model": "n",
            "version": None,
            "min_workers": 3,
            "max_workers": 3,
            "synchronous": False,
            "drain_timeout_s": 0.0,
            "number_gpu": 2,
        },
        {
            "model": "n",
            "version": None,
            "min_workers": 1,
            "max_workers": 1,
            "synchronous": False,
            "drain_timeout_s": None,
            "number_gpu": None,
        },
    ]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("min_worker=2&max_worker=1", "max_worker cannot be less than min_worker."),
        ("min_worker=-1", "min_worker cannot be negative."),
        ("number_gpu=-1", "number_gpu cannot be negative."),
    ],
)
def test_what_scale_refuses_it_refuses_before_it_looks_for_the_model(mms, query, said):
    """
    6.2.
    """
    answer = mms.request("management", "PUT", f"/models/nobody?{query}")

    assert answer.json == {"code": 400, "type": "BadRequestException", "message": said}


def test_describe_answers_an_object(mms, asked, record):
    """
    The page's fields in its order, then ours (6.3).
    """
    asked("describe", {"versions": [record(manifest_engine="MXNet")]})

    described = mms.request("management", "GET", "/models/demo").json

    assert [*described.items()] == [
        ("modelName", "demo"),
        ("modelVersion", "1.0"),
        ("modelUrl", "demo.mar"),
        ("engine", "MXNet"),
        ("runtime", "python"),
        ("minWorkers", 2),
        ("maxWorkers", 2),
        ("batchSize", 1),
        ("maxBatchDelay", 100),
        ("status", "Healthy"),
        ("loadedAtStartup", False),
        (
            "workers",
            [
                {
                    "id": "9000",
                    "startTime": "2024-10-02T13:44:53.034Z",
                    "status": "READY",
                    "gpu": False,
                    "memoryUsage": 0,
                }
            ],
        ),
    ]


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("ready", "READY"),
        ("busy", "READY"),
        ("starting", "LOADING"),
        ("loading", "LOADING"),
        ("draining", "UNLOADING"),
        ("dying", "UNLOADING"),
    ],
)
def test_a_workers_status_is_what_it_is(mms, asked, record, state, status):
    """
    The peer says READY of one that has only been started.
    """
    (worker,) = record()["workers"]
    asked("describe", {"versions": [record(workers=[{**worker, "state": state, "gpu_id": 0}])]})

    (shown,) = mms.request("management", "GET", "/models/demo").json["workers"]

    assert (shown["status"], shown["gpu"]) == (status, True)


def test_what_is_ours_is_shown_where_there_is_something_to_say(mms, asked, record):
    """
    A client that knows the peer's fields alone is not disturbed.
    """
    failure = {"message": "It is broken.", "last_line": "KeyError: 'x'", "log": "model/1.log"}
    shown = record(number_gpu=2, is_preloaded=True, failure=failure, manifest_engine=None)
    asked("describe", {"versions": [shown]})

    described = mms.request("management", "GET", "/models/demo").json

    assert "engine" not in described
    assert described["numberGpu"] == 2
    assert described["preloadModel"] is True
    assert described["failure"]["lastLine"] == "KeyError: 'x'"


def test_unregister_takes_every_version_away(mms, asked):
    """
    Somebody who knows no versions must not leave one behind (6.4).
    """
    calls = asked("unregister", {"model": "n", "version": None})

    answer = mms.request("management", "DELETE", "/models/n?synchronous=true&timeout=4")

    assert (answer.status, answer.json) == (200, {"status": 'Model "n" unregistered'})
    assert calls["unregister"] == [{"model": "n", "version": None, "all": True}]


def test_list_is_paged_by_offset(mms, asked):
    """
    A token also when the page ends exactly at the last model (6.5).
    """
    models = [{"model": name, "version": "1", "url": f"{name}.mar"} for name in "cd"]
    calls = asked("list", {"total": 4, "models": models})

    answer = mms.request("management", "GET", "/models?limit=2&next_page_token=2")

    assert answer.json == {
        "nextPageToken": "4",
        "models": [{"modelName": name, "modelUrl": f"{name}.mar"} for name in "cd"],
    }
    assert calls["list"] == [{"limit": 2, "offset": 2}]


@pytest.mark.parametrize(
    ("method", "target", "status", "kind"),
    [
        ("GET", "/models/n/1.0", 404, "ResourceNotFoundException"),
        ("PUT", "/models/n/1.0/set-default", 404, "ResourceNotFoundException"),
        ("GET", "/ping", 404, "ResourceNotFoundException"),
        ("DELETE", "/models", 405, "MethodNotAllowedException"),
        ("OPTIONS", "/models", 405, "MethodNotAllowedException"),
        ("OPTIONS", "/models/n", 405, "MethodNotAllowedException"),
        ("POST", "/models/n", 405, "MethodNotAllowedException"),
        ("GET", "/", 405, "MethodNotAllowedException"),
    ],
)
def test_management_paths_are_few(mms, method, target, status, kind):
    """
    Only /models and /models/{name}; there are no versions (6).
    """
    answer = mms.request("management", method, target)

    assert (answer.status, answer.json["code"], answer.json["type"]) == (status, status, kind)
    assert answer.header("connection") == "close"


# -- inference -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
@pytest.mark.parametrize(
    ("target", "given"),
    [
        ("/predictions/m?a=1", []),
        ("/predictions/m/9.9/and/more?a=1", []),
        ("/models/m/invoke?a=1&a=2", [("a", b"1"), ("a", b"2")]),
        ("/m/predict?a=1", [("a", b"1")]),
        ("/invocations?model_name=m&a=1", [("model_name", b"m"), ("a", b"1")]),
    ],
)
def test_predictions_come_by_four_ways(mms, supervisor, method, target, given):
    """
    The method is not looked at; a query is dropped on one of them; what follows the name
    on /predictions means nothing, not a version (5, 5.3).
    """
    supervisor.models["m"] = lambda job: [job.final(b"made")]

    answer = mms.request("inference", method, target, b"x", [("content-type", "a/b; charset=c")])

    assert (answer.status, answer.body) == (200, b"made")
    assert answer.header("content-type") is None
    (job,) = supervisor.jobs
    assert (job.job.model, job.job.version) == ("m", None)
    *inputs, body = job.payload.parameters
    assert [(name, bytes(value)) for name, _, value in inputs] == given
    assert body[:2] == ("body", "a/b")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/predictions"),
        ("POST", "/invocations/m"),
        ("POST", "/models/m/explain"),
        ("GET", "/models/m"),
        ("GET", "/models"),
        ("POST", "/v2/models/m/infer"),
    ],
)
def test_other_paths_are_not_there(mms, method, target):
    """
    5, last row.
    """
    assert mms.request("inference", method, target).json["type"] == "ResourceNotFoundException"


def test_below_the_api_description_no_method_is_allowed(mms):
    """
    405 for deeper paths, and for `/` with another method than OPTIONS (5).
    """
    for target in ("/api-description/more", "/"):
        assert mms.request("inference", "GET", target).status == 405
    assert mms.request("inference", "PUT", "/api-description").json["openapi"] == "3.0.1"


def test_invocations_need_a_model_that_the_query_names(mms, supervisor, asked):
    """
    A field of a form is passed on, but does not choose (5.2).
    """
    asked("startup_models", {"models": ["a", "b"]})
    form = b"model_name=a&x=1"
    headers = [("content-type", "application/x-www-form-urlencoded")]

    answer = mms.request("inference", "POST", "/invocations", form, headers)

    assert answer.json == {
        "code": 400,
        "type": "BadRequestException",
        "message": "Parameter model_name is required.",
    }


@pytest.mark.parametrize(
    ("running", "wanted", "said"),
    [
        (0, 0, "Healthy"),
        (2, 2, "Healthy"),
        (3, 2, "Healthy"),
        (1, 2, "Partial Healthy"),
        (0, 2, "Unhealthy"),
    ],
)
def test_ping_is_always_200_and_says_how_many_there_are(mms, asked, running, wanted, said):
    """
    5.1.
    """
    asked("health", {"running_workers": running, "wanted_workers": wanted})

    answer = mms.request("inference", "GET", "/ping")

    assert (answer.status, answer.json) == (200, {"status": said})


def test_every_answer_has_the_standing_headers(mms, asked):
    """
    3; a client's own request id is honoured all the same (contracts/README.md).
    """
    asked("health", {"running_workers": 0, "wanted_workers": 0})

    answer = mms.request("inference", "GET", "/ping")

    assert UUID.fullmatch(answer.header("x-request-id"))
    assert answer.header("pragma") == "no-cache"
    assert answer.header("cache-control") == "no-cache; no-store, must-revalidate, private"
    assert answer.header("expires") == "Thu, 01 Jan 1970 00:00:00 UTC"
    assert answer.header("connection") == "keep-alive"
    assert answer.header("content-length") == str(len(answer.body))


@pytest.mark.parametrize(("has_worker", "status"), [(True, 200), (False, 503)])
def test_sagemakers_ping_takes_the_place_of_ours(start_frontend, asked, has_worker, status):
    """
    Capital S, and words instead of a document while nothing is loaded (5.1, 15).
    """
    asked("health", {"has_ready_worker": has_worker, "running_workers": 0, "wanted_workers": 0})
    running = start_frontend(dialect="mms", sagemaker="single", max_request_size=3 << 20)

    answer = running.request("inference", "GET", "/ping")
    parameters = running.request("inference", "GET", "/execution-parameters")

    said = b'{\n\t"Status": "Healthy"\n}\n' if has_worker else b"Models are not loaded"
    assert (answer.status, answer.body) == (status, said)
    assert parameters.json == {
        "MaxConcurrentTransforms": 1,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": 3,
    }


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"startup_workers_per_model": 2}, 2),
        ({"startup_workers_per_model": 2, "default_workers_per_model": 5}, 5),
    ],
)
def test_sagemaker_may_call_as_often_as_num_workers_says(start_frontend, settings, count):
    """
    NUM_WORKERS is where the peer's plugin looks (8, 15); it has the default written to it.
    """
    running = start_frontend(dialect="mms", sagemaker="single", **settings)

    answer = running.request("inference", "GET", "/execution-parameters")

    assert answer.json["MaxConcurrentTransforms"] == count


# -- descriptions ----------------------------------------------------------------------


def operations(document):
    return {
        (path, method): described["operationId"]
        for path, methods in document["paths"].items()
        for method, described in methods.items()
        if not path.startswith("/health/")
    }


def test_description_lists_what_the_peer_lists(mms):
    """
    Paths, methods and operationIds of 7.
    """
    inference = mms.request("inference", "OPTIONS", "/").json
    management = mms.request("management", "OPTIONS", "/").json

    for document in (inference, management):
        assert document["openapi"] == "3.0.1"
        assert [*document["info"]] == ["title", "description", "version"]
        assert document["info"]["title"] == "Model Server APIs"
        assert document["info"]["version"] == "1.0.0"
    assert operations(inference) == {
        ("/", "options"): "apiDescription",
        ("/{model_name}/predict", "post"): "predict",
        ("/ping", "get"): "ping",
        ("/predictions/{model_name}", "post"): "predictions",
        ("/predictions/{model_name}", "options"): "predictionsApi",
        ("/api-description", "get"): "apiDescription",
        ("/invocations", "post"): "invocations",
        ("/models/{model_name}/invoke", "post"): "invocations",
    }
    assert operations(management) == {
        ("/", "options"): "apiDescription",
        ("/models", "get"): "listModels",
        ("/models", "post"): "registerModel",
        ("/models/{model_name}", "get"): "describeModel",
        ("/models/{model_name}", "put"): "setAutoScale",
        ("/models/{model_name}", "delete"): "unregisterModel",
    }
    assert inference["paths"]["/{model_name}/predict"]["post"]["deprecated"] is True
    assert inference["paths"]["/api-description"]["get"]["deprecated"] is True


def test_described_defaults_are_texts(mms):
    """
    And every parameter has the same five entries (7).
    """
    paths = mms.request("management", "OPTIONS", "/").json["paths"]

    for method in ("get", "post"):
        for field in paths["/models"][method]["parameters"]:
            assert [*field] == ["in", "name", "description", "required", "schema"]
    defaults = {
        field["name"]: field["schema"].get("default")
        for method, path in (("post", "/models"), ("put", "/models/{model_name}"))
        for field in paths[path][method]["parameters"]
    }
    assert defaults["initial_workers"] == "0"
    assert defaults["preload_model"] == "false"
    assert defaults["min_worker"] == "1"
    assert defaults["timeout"] == "-1"
    runtime = next(
        field for field in paths["/models"]["post"]["parameters"] if field["name"] == "runtime"
    )
    assert runtime["schema"]["enum"] == ["PYTHON", "PYTHON2", "PYTHON3"]


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        ("/models", "post", {"200", "202", "210", "400", "404", "409", "500"}),
        ("/models/{model_name}", "put", {"200", "202", "210", "400", "404", "500"}),
        ("/models/{model_name}", "delete", {"200", "404", "408", "500"}),
    ],
)
def test_described_answers_are_at_least_the_peers(mms, path, method, statuses):
    """
    7, column Responses.
    """
    paths = mms.request("management", "OPTIONS", "/").json["paths"]

    assert statuses <= {*paths[path][method]["responses"]}


@pytest.mark.parametrize("target", ["/predictions/m", "/models/m/invoke", "/m/predict"])
def test_a_model_has_a_description_with_one_path(mms, asked, target):
    """
    The path that is served; the peer writes /prediction (7).
    """
    asked("describe", NOTHING)

    document = mms.request("inference", "OPTIONS", target).json

    assert document["info"] == {"title": "RESTful API for: m", "version": "1.0.0"}
    assert [*document["paths"]] == ["/predictions/m"]
    (described,) = document["paths"]["/predictions/m"].values()
    assert (described["operationId"], described["parameters"]) == ("m", [])
    assert {"200", "500"} <= {*described["responses"]}


def test_an_unknown_model_has_no_description(mms, asked):
    """
    404 as everywhere.
    """
    asked("describe", ModelNotFound(model="m"))

    answer = mms.request("inference", "OPTIONS", "/predictions/m")

    assert answer.json["message"] == "Model not found: m"
