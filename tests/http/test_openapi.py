"""What the server says of itself: contracts/torchserve.md 2.9."""

from __future__ import annotations

import pytest

from stoker.errors import ModelNotFound


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
    ready, version = "/health/ready/{model_name}", "/models/{model_name}/{model_version}"
    health = {
        ("/health/live", "get"): "health_live",
        ("/health/ready", "get"): "health_ready",
        (ready, "get"): "health_model_ready",
        (f"{ready}/{{model_version}}", "get"): "version_health_model_ready",
    }
    common_of_two = {**common, **health}
    assert found["inference"] == {
        **common_of_two,
        ("/ping", "get"): "ping",
        ("/predictions/{model_name}", "post"): "predictions",
        ("/predictions/{model_name}/{model_version}", "post"): "version_predictions",
        ("/explanations/{model_name}", "post"): "explanations",
        ("/explanations/{model_name}/{model_version}", "post"): "version_explanations",
        ("/v1/models/{model_name}:predict", "post"): "v1_predict",
        ("/v1/models/{model_name}:explain", "post"): "v1_explain",
        ("/v2/models/{model_name}/infer", "post"): "v2_infer",
        ("/v2/models/{model_name}/explain", "post"): "v2_explain",
        ("/invocations", "post"): "invocations",
        ("/models/{model_name}/invoke", "post"): "invoke",
        ("/wfpredict/{workflow_name}", "post"): "wfpredict",
    }
    assert found["management"] == {
        **common_of_two,
        ("/models", "get"): "listModels",
        ("/models", "post"): "registerModel",
        ("/models/{model_name}", "get"): "describeModel",
        ("/models/{model_name}", "put"): "setAutoScale",
        ("/models/{model_name}", "delete"): "unregisterModel",
        (version, "get"): "version_describeModel",
        (version, "put"): "version_setAutoScale",
        (version, "delete"): "version_unregisterModel",
        (f"{version}/set-default", "put"): "setDefault",
        ("/workflows", "get"): "listWorkflows",
        ("/workflows", "post"): "registerWorkflow",
        ("/workflows/{workflow_name}", "get"): "describeWorkflow",
        ("/workflows/{workflow_name}", "delete"): "unregisterWorkflow",
        ("/v1/models/{model_name}", "get"): "v1_ready",
    }
    assert found["metrics"] == {("/metrics", "get"): "metrics"}


def test_described_operations_are_answered(frontend, supervisor):
    """
    A document that promises a 404 is worse than none.
    """
    for verb in (
        "health",
        "ready",
        "list",
        "register",
        "describe",
        "scale",
        "unregister",
        "set_default",
        "list_workflows",
        "register_workflow",
        "describe_workflow",
        "unregister_workflow",
    ):
        supervisor.verbs[verb] = lambda arguments: (_ for _ in ()).throw(ModelNotFound(model="m"))
    supervisor.verbs["statistics"] = lambda arguments: {}
    supervisor.verbs["startup_models"] = lambda arguments: {"models": ["m"]}
    for role in ("inference", "management", "metrics"):
        for path, methods in frontend.request(role, "OPTIONS", "/").json["paths"].items():
            for method in methods:
                target = path.replace("{model_name}", "m").replace("{model_version}", "1")
                target = target.replace("{workflow_name}", "w")

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


def test_every_answer_of_an_operation_is_described(frontend):
    """
    Statuses with their types and shapes; 413 alone has no body (1.6).
    """
    paths = frontend.request("management", "OPTIONS", "/").json["paths"]
    responses = paths["/models"]["post"]["responses"]

    assert [*responses] == sorted(responses)
    assert {"200", "202", "206", "400", "404", "408", "409", "413", "500", "503", "507"} <= {
        *responses
    }
    conflict = responses["409"]["content"]["application/json"]["schema"]["properties"]
    assert conflict["code"]["enum"] == [409]
    assert conflict["type"]["enum"] == ["ConflictStatusException"]
    assert "content" not in responses["413"]
    assert "default" not in responses


@pytest.mark.parametrize(
    ("method", "target", "kind"),
    [
        ("POST", "/models/a%2F1%2Fx", "ResourceNotFoundException"),
        ("DELETE", "/models/a%2F1%2Fset-default", "MethodNotAllowedException"),
        ("GET", "/v1/models/a%2Fb", "ResourceNotFoundException"),
    ],
)
def test_name_with_a_slash_leads_astray_and_that_is_described(frontend, method, target, kind):
    """
    Paths are decoded before they are split (1.2).
    """
    answer = frontend.request("management", method, target)

    assert answer.json["type"] == kind
    paths = frontend.request("management", "OPTIONS", "/").json["paths"]
    for path, methods in paths.items():
        for described in methods.values():
            responses = described["responses"]
            assert ("{" in path) == (
                kind in responses.get(str(answer.status), {}).get("description", "")
            )


def test_a_handlers_answer_stands_under_default(frontend, supervisor):
    """
    Its status is the handler's to choose.
    """
    inference = frontend.request("inference", "OPTIONS", "/").json["paths"]
    management = frontend.request("management", "OPTIONS", "/").json["paths"]

    assert "default" in inference["/predictions/{model_name}"]["post"]["responses"]
    assert "default" in management["/models/{model_name}"]["get"]["responses"]
    assert "default" not in management["/models/{model_name}"]["put"]["responses"]


@pytest.mark.parametrize(
    "target",
    [
        "/predictions/m",
        "/predictions/m/2.0",
        "/predictions/m/2.0/rest",
        "/explanations/m",
        "/v1/models/m:predict",
        "/v2/models/m/infer",
        "/models/m/invoke",
        "/m/predict",
    ],
)
def test_every_way_to_a_model_describes_it(frontend, supervisor, target):
    """
    OPTIONS on what any other method predicts with (2.1, 2.9).
    """
    asked = []
    supervisor.verbs["describe"] = lambda arguments: asked.append(arguments) or {"versions": []}

    document = frontend.request("inference", "OPTIONS", target).json

    assert document["info"]["title"] == "RESTful API for: m"
    assert "/predictions/m" in document["paths"]
    assert "/v1/models/m:predict" in document["paths"]
    assert not any("{model_name}" in path for path in document["paths"])
    assert asked[0]["version"] == ("2.0" if "2.0" in target else None)


def test_keys_are_told_where_they_are_asked_for(start_frontend, tmp_path):
    """
    The description itself is open (1.2).
    """
    key_file = tmp_path / "key_file.json"
    running = start_frontend(disable_token_authorization=False, key_file=key_file)

    document = running.request("management", "OPTIONS", "/").json

    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["paths"]["/models"]["get"]["security"] == [{"token": []}]
    assert document["paths"]["/"]["options"]["security"] == []
    refusal = document["paths"]["/models"]["get"]["responses"]["400"]
    assert "InvalidKeyException" in refusal["description"]


def test_every_field_of_a_describe_is_described(frontend, supervisor, record):
    """
    Also those that appear only when something went wrong.
    """
    validator = pytest.importorskip("jsonschema_rs")
    failure = {
        **{"message": "m", "last_line": "l", "log": "f", "exit": "e", "likely": "c"},
        **{"attempts": 2, "deaths": 2},
    }
    death = {
        **{"at": 1.0, "worker": 9000, "pid": 7, "exit": "SIGKILL", "likely": "memory"},
        **{"jobs_again": 1, "jobs_failed": 0},
    }
    conviction = {"content": "00", "likely": "c", "deaths": 2, "refused": 1, "until": 1.0}
    full = record(
        device_ids=[0],
        device_type="gpu",
        failure=failure,
        deaths=1,
        last_death=death,
        recycled=1,
        groups=[
            {"gpu_id": 0, "min_workers": 1, "max_workers": 2, "workers": [9000]},
            {"gpu_id": None, "min_workers": 0, "max_workers": 0, "workers": []},
        ],
        scaling={
            **{"wanted": 1, "why": "the load fits", "queue_wait_target_s": 0.25},
            **{"max_idle_s": 60.0, "measured": {"requests_per_s": 1.5, "queued": 0}},
            "last_change": {
                **{"at": 0.0, "from": 2, "to": 1, "why": "nothing came"},
                "measured": {"batch_s": 0.1, "start_s": None},
            },
        },
        quarantine=[conviction],
        fence={
            **{"kind": "rlimits", "network": True, "user": "models", "memory_bytes": 1},
            "no_bubblewrap": "bwrap is not installed",
        },
    )
    supervisor.verbs["describe"] = lambda arguments: {"versions": [record(), full]}
    supervisor.models["demo"] = lambda job: [job.final(b'{"a": 1}')]

    answer = frontend.request("management", "GET", "/models/demo?customized=true").json

    paths = frontend.request("management", "OPTIONS", "/").json["paths"]
    described = paths["/models/{model_name}"]["get"]["responses"]["200"]
    schema = described["content"]["application/json"]["schema"]
    validator.validator_for(schema).validate(answer)
    # The other way round: nothing is described that no describe shows.
    assert {*schema["items"]["properties"]} == {*answer[0]} | {*answer[1]}
    assert {*schema["items"]["properties"]["failure"]["properties"]} == {*answer[1]["failure"]}


@pytest.mark.parametrize(
    "switches",
    [{"sagemaker": "single"}, {"sagemaker": "multi"}, {"ts_open_inference_protocol": True}],
    ids=str,
)
def test_every_switch_has_a_valid_document(start_frontend, switches):
    """
    What a switch adds is described, and readers of OpenAPI take it.
    """
    schemathesis = pytest.importorskip("schemathesis")
    running = start_frontend(**switches)

    document = running.request("inference", "OPTIONS", "/").json

    schemathesis.openapi.from_dict(document).validate()
    added = {"/execution-parameters"} if "sagemaker" in switches else {"/v2", "/v2/health/live"}
    assert added <= {*document["paths"]}
