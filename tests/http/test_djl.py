"""The DJL dialect over a made-up supervisor: contracts/djl-serving.md 1, 3, 4."""

from __future__ import annotations

import pytest

from stoker.errors import QueueFull
from stoker.frontend.error_rates import clear_mark
from stoker.wire.frames import JobFlag

RECORD = {
    "model": "mlp",
    "version": "1.0",
    "is_unversioned": True,
    "url": "mlp.zip",
    "min_workers": 1,
    "max_workers": 2,
    "batch_size": 1,
    "max_batch_delay_s": 0.1,
    "max_idle_s": 60.0,
    "queue": {"capacity": 1000, "pending": 3},
    "status": "Healthy",
    "is_pending": False,
    "loaded_at_startup": True,
    "device_ids": [],
    "workers": [{"id": 9000, "started_at": 0.0, "state": "ready", "gpu_id": None}],
    "groups": [{"gpu_id": None, "min_workers": 1, "max_workers": 2, "workers": [9000]}],
}
STATE = {
    "model": "m",
    "version": "1.0",
    "url": "m.zip",
    "status": "Healthy",
    "is_pending": False,
    "is_unversioned": True,
}


@pytest.fixture(scope="module")
def djl_of_module(start_for_module):
    return start_for_module(dialect="djl")


@pytest.fixture
def djl(djl_of_module, supervisor):
    """A frontend whose listeners speak DJL's dialect, and a clean supervisor."""
    djl_of_module.frontend._lanes.closed.clear()
    return djl_of_module


@pytest.fixture
def asked(supervisor):
    """Arguments of the calls that were made; each verb answers as told."""
    calls = []

    def answers(verb, outcome):
        def answer(arguments):
            calls.append(arguments)
            return outcome

        supervisor.verbs[verb] = answer
        return calls

    return answers


# -- management ------------------------------------------------------------------------


def test_register_is_synchronous_and_names_the_model_after_the_url(djl, asked):
    """
    4.1; nothing that is not said is invented.
    """
    calls = asked("register", {"outcome": "ready", "model": "my_mlp", "version": "1.0"})

    answer = djl.request("management", "POST", "/models?url=http%3A%2F%2Fh%2Fmy-mlp.tar.gz")

    assert (answer.status, answer.json) == (200, {"status": 'Model "my_mlp" registered.'})
    (arguments,) = calls
    assert {name: arguments[name] for name in ("model", "version", "synchronous")} == {
        "model": "my_mlp",
        "version": "1.0",
        "synchronous": True,
    }
    assert (arguments["is_unversioned"], arguments["takes_free_name"]) == (True, True)
    for name in ("min_workers", "max_workers", "batch_size", "queue_capacity", "devices"):
        assert arguments[name] is None


def test_register_says_everything_it_is_told(djl, asked):
    """
    4.1: milliseconds become seconds, a GPU's number a device, -1 nothing.
    """
    calls = asked("register", {"outcome": "scheduled", "model": "m", "version": "v1"})
    query = (
        "url=file:/a/m.zip&model_name=m&model_version=v1&engine=Python&gpu_id=-1&batch_size=8"
        "&max_batch_delay=50&max_idle_time=9&min_worker=2&max_worker=-1&job_queue_size=7"
        "&synchronous=false"
    )

    answer = djl.request("management", "POST", f"/workflows?{query}")

    assert (answer.status, answer.json) == (
        202,
        {"status": 'Workflow "m" registration scheduled.'},
    )
    (arguments,) = calls
    expected = {
        "url": "file:///a/m.zip",
        "version": "v1",
        "is_unversioned": False,
        "takes_free_name": False,
        "engine": "Python",
        "devices": "-1",
        "batch_size": 8,
        "max_batch_delay_s": 0.05,
        "max_idle_s": 9.0,
        "min_workers": 2,
        "max_workers": None,
        "queue_capacity": 7,
        "synchronous": False,
        "answers_first": True,
    }
    assert expected.items() <= arguments.items()


def test_register_takes_json(djl, asked):
    """
    4.1: the same names, also without one for the model.
    """
    calls = asked("register", {"outcome": "ready", "model": "m", "version": "1.0"})

    djl.request(
        "management",
        "POST",
        "/models",
        b'{"url": "m.zip", "batch_size": 3}',
        (("Content-Type", "application/json"),),
    )

    assert (calls[0]["model"], calls[0]["batch_size"]) == ("m", 3)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "Parameter url is required."),
        ("url=", "Parameter url is required."),
        ("url=djl://ai.djl.zoo/mlp", "djl:// addresses are read by a library of the Java server"),
        ("url=s3://b/k", "s3:// addresses"),
        ("url=m.zip&batch_size=two", 'parameter is invalid number.For input string: "two"'),
        ("url=m.zip&batch_size=0", 'parameter is invalid number.For input string: "0"'),
    ],
)
def test_register_refuses_what_cannot_be(djl, query, message):
    """
    4.1, 1: always a 400, also for numbers, and nothing is asked of the supervisor.
    """
    answer = djl.request("management", "POST", f"/models?{query}")

    assert (answer.status, answer.json["type"]) == (400, "BadRequestException")
    assert answer.json["message"].startswith(message)


def test_an_empty_value_says_nothing(djl, asked):
    """
    1.
    """
    calls = asked("register", {"outcome": "ready", "model": "m", "version": "1.0"})

    djl.request("management", "POST", "/models?url=m.zip&batch_size=&synchronous=")

    assert (calls[0]["batch_size"], calls[0]["synchronous"]) == (None, True)


def test_scale_keeps_what_it_does_not_name(djl, asked):
    """
    4.3: all versions, unless the path names one.
    """
    calls = asked("scale", {"outcome": "scheduled", "min_workers": 1, "max_workers": 4})

    answer = djl.request("management", "PUT", "/models/m?max_worker=4")
    djl.request("management", "PUT", "/workflows/m/v1?min_worker=1&max_worker=1")

    assert (answer.status, answer.json) == (202, {"status": "Worker updated"})
    assert (calls[0]["min_workers"], calls[0]["max_workers"]) == (None, 4)
    assert (calls[0]["version"], calls[0]["all"], calls[1]["version"]) == (None, True, "v1")


def test_scale_says_the_requests_numbers_when_it_has_waited(djl, asked):
    """
    4.3: -1 for what was not said.
    """
    asked("scale", {"outcome": "ready", "min_workers": 1, "max_workers": 4})

    answer = djl.request("management", "PUT", "/models/m?max_worker=4&synchronous=true")

    assert answer.json["status"] == (
        'Workflow "m" worker scaled. New Worker configuration min workers:-1 max workers:4'
    )


def test_scale_refuses_less_than_the_least(djl):
    """
    4.3, kept from older releases.
    """
    answer = djl.request("management", "PUT", "/models/m?min_worker=2&max_worker=1")

    assert answer.json["message"] == "max_worker cannot be less than min_worker."


def test_describe_is_the_pages_object_for_one_version(djl, asked):
    """
    4.4, the shape of the published page.
    """
    calls = asked("describe", {"versions": [RECORD]})

    document = djl.request("management", "GET", "/models/mlp").json

    assert list(document) == [
        "modelName",
        "modelUrl",
        "minWorkers",
        "maxWorkers",
        "batchSize",
        "maxBatchDelay",
        "maxIdleTime",
        "queueLength",
        "status",
        "loadedAtStartup",
        "workers",
    ]
    assert document["workers"] == [
        {"id": 9000, "startTime": "1970-01-01T00:00:00.000Z", "status": "READY", "gpu": False}
    ]
    assert calls[0].items() >= {"model": "mlp", "version": None, "all": True}.items()


def test_describe_is_an_array_where_the_setting_says_so(start_frontend, supervisor):
    """
    4.4, the shape since v0.21.
    """
    supervisor.verbs["describe"] = lambda arguments: {"versions": [RECORD]}
    running = start_frontend(dialect="djl", djl_describe="array")

    (workflow,) = running.request("management", "GET", "/workflows/mlp").json

    assert workflow == {
        "workflowName": "mlp",
        "models": [
            {
                "modelName": "mlp",
                "modelUrl": "mlp.zip",
                "batchSize": 1,
                "maxBatchDelayMillis": 100,
                "maxIdleSeconds": 60,
                "queueSize": 1000,
                "requestInQueue": 3,
                "status": "Healthy",
                "loadedAtStartup": True,
                "workerGroups": [
                    {
                        "device": {"deviceType": "cpu", "deviceId": -1},
                        "minWorkers": 1,
                        "maxWorkers": 2,
                        "workers": [
                            {
                                "id": 9000,
                                "startTime": "1970-01-01T00:00:00.000Z",
                                "status": "READY",
                            }
                        ],
                    }
                ],
            }
        ],
    }


def test_several_versions_have_one_shape(djl, asked):
    """
    The page's object has room for one.
    """
    versions = [{**RECORD, "version": v, "is_unversioned": False} for v in ("v1", "v2")]
    asked("describe", {"versions": versions})

    document = djl.request("management", "GET", "/models/mlp").json

    assert [workflow["version"] for workflow in document] == ["v1", "v2"]


def test_workers_of_several_gpus_are_groups(djl, asked):
    """
    6.1: one group for each device, each with its share.
    """
    worker = RECORD["workers"][0]
    record = {
        **RECORD,
        "min_workers": 2,
        "max_workers": 4,
        "workers": [{**worker, "gpu_id": 1}],
        "groups": [
            {"gpu_id": 0, "min_workers": 1, "max_workers": 2, "workers": []},
            {"gpu_id": 1, "min_workers": 1, "max_workers": 2, "workers": [9000]},
        ],
    }
    asked("describe", {"versions": [record, record]})

    groups = djl.request("management", "GET", "/models/mlp").json[0]["models"][0]["workerGroups"]

    assert [(g["device"]["deviceId"], g["minWorkers"], len(g["workers"])) for g in groups] == [
        (0, 1, 0),
        (1, 1, 1),
    ]


@pytest.mark.parametrize(
    ("status", "is_pending", "word"),
    [
        ("Healthy", False, "Healthy"),
        ("Unhealthy", False, "Unhealthy"),
        ("Unhealthy", True, "PENDING"),
        ("Failed", True, "FAILED"),
    ],
)
def test_words_for_how_a_model_is(djl, asked, status, is_pending, word):
    """
    4.4.
    """
    asked("describe", {"versions": [{**RECORD, "status": status, "is_pending": is_pending}]})

    assert djl.request("management", "GET", "/models/mlp").json["status"] == word


def test_lists_show_every_version_and_a_token_while_there_is_more(djl, asked):
    """
    4.6: a page counts endpoints.
    """
    versions = [{**STATE, "version": v, "is_unversioned": False} for v in ("1", "2")]
    calls = asked("list", {"total": 2, "models": [{"versions": versions}]})

    models = djl.request("management", "GET", "/models?limit=1").json
    workflows = djl.request("management", "GET", "/workflows?limit=1&next_page_token=1").json

    assert models["nextPageToken"] == "1"
    assert models["models"][1] == {
        "modelName": "m",
        "version": "2",
        "modelUrl": "m.zip",
        "status": "READY",
    }
    assert workflows == {
        "workflows": [
            {"workflowName": "m", "version": "1"},
            {"workflowName": "m", "version": "2"},
        ]
    }
    assert (calls[1]["limit"], calls[1]["offset"]) == (1, 1)


def test_unregister_takes_all_versions_or_the_one_that_is_named(djl, asked):
    """
    4.5.
    """
    calls = asked("unregister", {"model": "m", "version": None})

    answer = djl.request("management", "DELETE", "/models/m")
    djl.request("management", "DELETE", "/models/m/v1")

    assert answer.json == {"status": 'Workflow "m" unregistered'}
    assert [(call["all"], call["version"]) for call in calls] == [(True, None), (False, "v1")]
    assert calls[1]["may_be_default"] is True


@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", "/models/m"), ("PUT", "/models"), ("PATCH", "/workflows/m")],
)
def test_other_methods_are_not_allowed(djl, method, target):
    """
    4.
    """
    assert djl.request("management", method, target).status == 405


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/models?url=m.zip"),
        ("POST", "/workflows?url=m.zip"),
        ("DELETE", "/workflows/m"),
        ("POST", "/models/m/adapters?name=a&src=/a"),
        ("DELETE", "/models/m/adapters/a"),
    ],
)
def test_the_model_api_can_be_switched_off(start_frontend, method, target):
    """
    `enable_model_api=false`: nobody loads anything over HTTP, adapters included.
    """
    running = start_frontend(dialect="djl", enable_model_api=False)

    assert running.request("management", method, target).status == 405


def test_adapters_without_a_model_are_those_of_the_only_one(start_frontend, supervisor):
    """
    5: `/adapters` when exactly one startup model exists, else 400.
    """
    record = {**RECORD, "takes_adapters": True}
    supervisor.verbs["describe"] = lambda arguments: {"versions": [record]}
    supervisor.models["lora"] = lambda job: [job.final(b'{"adapters": []}')]
    supervisor.verbs["startup_models"] = lambda arguments: {"models": ["lora"]}
    running = start_frontend(dialect="djl")

    answer = running.request("management", "GET", "/adapters?limit=5")

    assert (answer.status, answer.json) == (200, {"adapters": []})
    (job,) = supervisor.jobs
    assert job.headers["stoker: adapters"] == "list"
    assert ("limit", "", b"5") in [tuple(each) for each in job.payload.parameters]
    supervisor.verbs["startup_models"] = lambda arguments: {"models": []}
    answer = start_frontend(dialect="djl").request("management", "GET", "/adapters")
    assert (answer.status, answer.json["message"]) == (400, "Parameter model_name is required.")


def test_no_client_can_pass_for_the_adapters_api(djl, supervisor, echo):
    """
    The header that tells a worker so cannot be sent: a name with a colon in it is none.
    """
    answer = djl.request(
        "inference", "POST", "/predictions/echo", b"x", (("stoker: adapters", "list"),)
    )

    assert answer.body == b"x"
    assert "stoker: adapters" not in supervisor.jobs[-1].headers


# -- inference -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "status", "body"),
    [
        ([], 200, {}),
        ([STATE], 200, {"m": {"status": "Healthy"}}),
        ([{**STATE, "status": "Unhealthy"}], 200, {"m": {"status": "Unhealthy"}}),
        ([{**STATE, "is_pending": True}], 200, {"m": {"status": "PENDING"}}),
        ([STATE, {**STATE, "status": "Failed"}], 500, {"m": {"status": "FAILED"}}),
    ],
)
def test_ping_is_a_map_of_models(djl, asked, states, status, body):
    """
    3.1.
    """
    asked("health", {"versions": states})

    answer = djl.request("inference", "GET", "/ping")

    assert (answer.status, answer.json) == (status, body)


def test_ping_may_have_a_status_for_what_is_to_come(start_frontend, supervisor):
    """
    3.1, `allow_multi_status`.
    """
    supervisor.verbs["health"] = lambda arguments: {"versions": [{**STATE, "is_pending": True}]}
    running = start_frontend(dialect="djl", allow_multi_status=True)

    assert running.request("inference", "GET", "/ping").status == 207


@pytest.mark.parametrize("status", [424, 500])
def test_too_many_failures_make_the_server_unhealthy(start_frontend, supervisor, status):
    """
    2.1: whatever a handler answers from 500 on, or 424, counts, on both ways.
    """
    supervisor.verbs["health"] = lambda arguments: {"versions": [STATE]}
    supervisor.models["m"] = lambda job: [job.final(b"x", status=status)]
    running = start_frontend(dialect="djl", error_rate_any="1")
    try:
        for target in ("/predictions/m", "/predictions/m?a=b"):
            assert running.request("inference", "GET", "/ping").status == 200
            running.request("inference", "POST", target)

        answer = running.request("inference", "GET", "/ping")

        assert (answer.status, answer.json) == (503, {"m": {"status": "Healthy"}})
    finally:
        clear_mark(running.frontend.settings.runtime_dir)


def test_a_full_queue_counts_as_a_failure_of_workers(start_frontend, supervisor):
    """
    2.1.
    """

    def refuse(job):
        raise QueueFull(model="m")

    supervisor.verbs["health"] = lambda arguments: {"versions": [STATE]}
    supervisor.models["m"] = refuse
    running = start_frontend(dialect="djl", error_rate_wlm="1")
    try:
        for _ in range(2):
            running.request("inference", "POST", "/predictions/m?a=b")

        assert running.request("inference", "GET", "/ping").status == 503
    finally:
        clear_mark(running.frontend.settings.runtime_dir)


@pytest.mark.parametrize(
    ("target", "version"),
    [("/predictions/echo", None), ("/predictions/echo/v1", "v1"), ("/models/echo/invoke", None)],
)
def test_versions_take_turns_unless_one_is_named(djl, supervisor, echo, target, version):
    """
    3.2.
    """
    assert djl.request("inference", "POST", target, b"x").body == b"x"

    assert supervisor.jobs[-1].job.version == version
    assert supervisor.jobs[-1].job.flags & JobFlag.TAKES_TURNS


def test_query_parameters_are_inputs_before_the_body(djl, supervisor, echo):
    """
    3.3.
    """
    djl.request("inference", "POST", "/predictions/echo?topK=5&a=b", b"x")

    parameters = supervisor.jobs[-1].payload.parameters
    assert [(name, body) for name, _, body in parameters] == [
        ("topK", b"5"),
        ("a", b"b"),
        ("body", b"x"),
    ]


FORM = (
    b'--x\r\ncontent-disposition: form-data; name="model_name"\r\n\r\necho\r\n--x--\r\n',
    (("Content-Type", "multipart/form-data; boundary=x"),),
)


@pytest.mark.parametrize("path", ["/invocations", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("query", "body", "headers"),
    [
        ("?model_name=echo&model_version=v1", b"", ()),
        ("", b"", (("Model_Name", "echo"), ("model_version", "v1"))),
        (
            "",
            b"",
            (("X-Amzn-SageMaker-Custom-Attributes", "a=1;model_name=echo; model_version=v1"),),
        ),
        ("?model_version=v1", *FORM),
    ],
)
def test_a_model_is_named_by_query_header_or_form(
    djl, supervisor, echo, path, query, body, headers
):
    """
    3.2, in this order.
    """
    supervisor.verbs["startup_models"] = lambda arguments: {"models": ["other"]}

    answer = djl.request("inference", "POST", f"{path}{query}", body, headers)

    assert answer.status == 200
    assert (supervisor.jobs[-1].job.model, supervisor.jobs[-1].job.version) == ("echo", "v1")


def test_the_only_model_of_the_start_is_meant_by_nobody_named(start_frontend, supervisor, echo):
    """
    3.2, last resort; without one it is a 400.
    """
    supervisor.verbs["startup_models"] = lambda arguments: {"models": ["echo"]}
    assert start_frontend(dialect="djl").request("inference", "POST", "/invocations").status == 200

    supervisor.verbs["startup_models"] = lambda arguments: {"models": []}
    answer = start_frontend(dialect="djl").request("inference", "POST", "/invocations")
    assert (answer.status, answer.json["message"]) == (400, "Parameter model_name is required.")


def test_options_are_an_empty_object(djl, asked):
    """
    1, 3: of the server, and of a model that is there.
    """
    asked("describe", {"versions": [RECORD]})

    assert djl.request("management", "OPTIONS", "/").json == {}
    assert djl.request("inference", "OPTIONS", "/predictions/mlp").json == {}


def test_what_is_served_is_described_on_a_path_of_ours(djl):
    """
    The peer has no document.
    """
    paths = djl.request("management", "GET", "/api-description").json["paths"]

    assert {*paths["/models"]} == {"get", "post"}
    assert {*paths["/workflows/{model_name}/{model_version}"]} == {"get", "put", "delete"}


def test_one_port_serves_everything(start_frontend, supervisor, echo):
    """
    1: `/models/{m}/invoke` is a prediction beside `/models/{m}/{version}`.
    """
    supervisor.verbs["describe"] = lambda arguments: {"versions": [RECORD]}
    listener = "http://127.0.0.1:0 djl inference+management+metrics"
    running = start_frontend(listeners=(listener,), enable_metrics_api=False)

    assert running.request("inference", "POST", "/models/echo/invoke", b"x").body == b"x"
    assert running.request("management", "GET", "/models/echo/v1").status == 200
