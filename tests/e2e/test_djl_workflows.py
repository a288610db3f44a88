"""DJL Serving's workflows against a real server: contracts/djl-serving.md 4 and 8."""

from __future__ import annotations

import json
import shutil

import pytest
from facts import wait_until

pytestmark = pytest.mark.slow

MODEL = """
from djl_python import Input, Output

def handle(inputs: Input) -> Output:
    if inputs.is_empty():
        return None
    said = inputs.get_as_bytes().decode()
    if said == "refuse":
        raise ValueError("this one is refused")
    return Output().add_as_json([len(said), {factor} * len(said)]).add_property(
        "Content-Type", "application/json"
    )
"""
FUNCTIONS = """
import json
from djl_python import Output

def pre(item):
    return item.get_as_bytes().decode() + "!"

def post(item, original):
    numbers = item.get_as_json()
    asked = original.get_as_bytes().decode()
    return {"numbers": numbers, "asked": asked, "type": item.get_property("content-type")}

def stream(item):
    text = item.get_as_bytes().decode()
    return Output().add_stream_content(iter(text), output_formatter=lambda piece: piece)
"""
ENSEMBLE = {
    "name": "flow",
    "models": {"m1": "{model_dir}/m1", "m2": {"modelUrl": "{model_dir}/m2", "batchSize": 4}},
    "functions": {"pre": "functions:pre", "post": "functions:post"},
    "workflow": {
        "clean": ["pre", "in"],
        "all": ["functionsApply", ["m1", "m2"], "clean"],
        "out": ["post", ["ensemble", "all"], "in"],
    },
}


@pytest.fixture(scope="module")
def server_flags():
    return ("--dialect", "djl")


@pytest.fixture
def define(model_store):
    """A folder of the store with two models, functions, and a definition."""
    folder = model_store / "flow"
    for name, factor in (("m1", 2), ("m2", 4)):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.py").write_text(MODEL.replace("{factor}", str(factor)))
        (folder / name / "serving.properties").write_text("engine=Python\n")
    (folder / "functions.py").write_text(FUNCTIONS)

    def write(**about):
        (folder / "workflow.json").write_text(json.dumps({**ENSEMBLE, **about}))
        return folder

    yield write
    shutil.rmtree(folder)


@pytest.fixture
def flows(server):
    """Whatever workflows are registered go at the end."""
    yield server
    for each in server.manage("GET", "/workflows").json["workflows"]:
        server.manage("DELETE", f"/workflows/{each['workflowName']}")


def predict(server, body, name="flow", **headers):
    return server.ask("inference", "POST", f"/predictions/{name}", body.encode(), **headers)


def test_a_graph_of_models_and_python_functions(flows, define):
    """
    8.2: nested calls, functionsApply, ensemble, and functions of evaluated inputs.
    """
    define()
    answer = flows.manage("POST", "/workflows", url="flow")
    assert (answer.status, answer.said) == (200, 'Workflow "flow" registered.')

    asked = predict(flows, "hey")

    assert asked.json == {"numbers": [4.0, 12.0], "asked": "hey", "type": "application/json"}
    assert asked.header("content-type") == "application/json"
    assert predict(flows, "hey", "flow/nope").status == 404


def test_describe_list_scale_and_unregister(flows, define):
    """
    4.3 to 4.6: a workflow beside models.
    """
    define()
    flows.manage("POST", "/workflows", url="flow")

    (described,) = flows.manage("GET", "/workflows/flow").json
    assert described["workflowName"] == "flow"
    models = {model["modelName"]: model for model in described["models"]}
    assert set(models) == {"m1", "m2", "pre", "post", "ensemble"}
    assert models["m2"]["batchSize"] == 4
    assert [item["workflowName"] for item in flows.manage("GET", "/workflows").json["workflows"]]
    listed = {item["modelName"] for item in flows.manage("GET", "/models").json["models"]}
    assert listed == {f"flow:{name}" for name in models}
    scaled = flows.manage("PUT", "/workflows/flow", min_worker=2, max_worker=2, synchronous="true")
    assert scaled.status == 200
    picture = flows.manage("GET", "/workflows/flow", graph="svg")
    assert picture.header("content-type") == "image/svg+xml"
    assert "2 of 2 workers ready" in picture.text
    gone = flows.manage("DELETE", "/workflows/flow")
    assert (gone.status, gone.said) == (200, 'Workflow "flow" unregistered')
    assert flows.manage("GET", "/workflows/flow").status == 404
    assert flows.manage("GET", "/models").json["models"] == []


def test_a_handlers_failure_is_told_as_it_tells_it_and_where(flows, define):
    """
    8.3: the first failing model decides the status; ours says which it was.
    """
    define(workflow={"out": ["post", ["m1", "in"], "in"]})
    flows.manage("POST", "/workflows", url="flow")

    answer = predict(flows, "refuse", x_request_id="r-1")

    assert (answer.status, answer.header("x-stoker-node")) == (424, "m1")
    assert answer.json["error"] == "this one is refused"
    line = flows.wait_logged("workflow node failed", node="m1")
    assert line["request_id"] == "r-1"


def test_the_same_model_in_two_workflows_is_one_pool(flows, define):
    """
    And it stays as long as one of them does.
    """
    define()
    flows.manage("POST", "/workflows", url="flow")
    define(name="other", workflow={"out": ["m1", "in"]})
    assert flows.manage("POST", "/workflows", url="flow").said == 'Workflow "other" registered.'
    assert predict(flows, "hey", "other").json == [3, 6]
    workers = _pids(flows)

    flows.manage("DELETE", "/workflows/flow")

    assert predict(flows, "hey", "other").json == [3, 6]
    assert len(workers["m1"]) == 1
    assert _pids(flows)["m1"] == workers["m1"]


def _pids(server):
    return {
        model["modelName"]: [w["id"] for group in model["workerGroups"] for w in group["workers"]]
        for each in server.manage("GET", "/workflows").json["workflows"]
        for described in server.manage("GET", f"/workflows/{each['workflowName']}").json
        for model in described["models"]
    }


def test_versions_stand_beside_each_other(flows, define):
    """
    4.2: each has its own path, and they take turns where none is named.
    """
    for version, factor in (("v1", "m1"), ("v2", "m2")):
        define(version=version, workflow={"out": [factor, "in"]})
        assert flows.manage("POST", "/workflows", url="flow").status == 200

    assert predict(flows, "hey", "flow/v1").json == [3, 6]
    assert predict(flows, "hey", "flow/v2").json == [3, 12]
    both = {tuple(predict(flows, "hey").json) for _ in range(2)}
    assert both == {(3, 6), (3, 12)}
    again = flows.manage("POST", "/workflows", url="flow")
    assert again.status == 409


def test_a_model_cannot_take_a_workflows_name(flows, define):
    """
    4.1: a model is a workflow, too.
    """
    define()
    flows.manage("POST", "/workflows", url="flow")

    answer = flows.manage("POST", "/models", url="flow/m1", model_name="flow")

    assert answer.status == 409
    assert answer.json["message"] == "Workflow flow is already registered."


def test_pieces_of_the_last_function_come_as_they_are_made(flows, define):
    """
    A stream through a graph is a stream.
    """
    functions = {"pre": "functions:pre", "stream": "functions:stream"}
    define(functions=functions, workflow={"out": ["stream", ["pre", "in"]]})
    flows.manage("POST", "/workflows", url="flow")

    answer = predict(flows, "abc")

    assert (answer.header("transfer-encoding"), answer.body) == ("chunked", b"abc!")


def test_a_definition_may_be_yaml_a_template_or_asynchronous(flows, define, model_store):
    """
    8.1, 8.4, 4.2.
    """
    folder = define()
    text = "name: '{name}'\nmodels: {m: '{where}/m1'}\nworkflow: {out: [m, in]}\n"
    (model_store / "workflowTemplates").mkdir()
    (model_store / "workflowTemplates" / "one.json").write_text(text)

    answer = flows.manage("POST", "/workflows", template="one", name="made", where="flow")
    assert answer.said == 'Workflow "made" registered.'
    assert predict(flows, "hey", "made").json == [3, 6]
    missing = flows.manage("POST", "/workflows", template="two")
    assert missing.json["message"] == "The workflow template two could not be found"
    shutil.rmtree(model_store / "workflowTemplates")
    (folder / "workflow.json").unlink()
    (folder / "workflow.yaml").write_text(json.dumps(ENSEMBLE))

    scheduled = flows.manage("POST", "/workflows", url="flow", synchronous="false")

    assert scheduled.said == 'Workflow "flow" registration scheduled.'
    assert scheduled.status == 202
    wait_until(lambda: predict(flows, "hey").status == 200, "it is there")


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        (
            {"a": ["m1", "b"], "b": ["m1", "a"], "out": ["m1", "a"]},
            "Your workflow contains a cycle with target: a",
        ),
        ({"out": ["nobody", "in"]}, "Could not find find model or function: nobody"),
    ],
)
def test_a_definition_that_makes_no_sense_is_a_400_with_its_text(flows, define, workflow, message):
    """
    4.2, 8.3: found at registration.
    """
    define(workflow=workflow)

    answer = flows.manage("POST", "/workflows", url="flow")

    assert (answer.status, answer.json["message"]) == (400, message)


def test_workflows_are_there_again_after_the_supervisor_died(start_server, define):
    """
    With the workers that they had.
    """
    define()
    server = start_server("--dialect", "djl")
    assert server.manage("POST", "/workflows", url="flow").status == 200

    server.supervisor.kill()

    wait_until(lambda: predict(server, "hey").status == 200, "it answers again")
