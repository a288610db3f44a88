"""TorchServe's workflows against a real server: contracts/torchserve.md section 4."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from facts import wait_until
from live_server import HANDLERS

from stoker.archives.pack import Parts, pack
from stoker.archives.war import pack_war

pytestmark = pytest.mark.slow

DIAMOND = """
models:
  min-workers: 1
  max-workers: 1
  batch-size: 8
  max-batch-delay: 5
  m1: {url: echo.mar}
  m2: {url: echo.mar, batch-size: 1, max-workers: 2}
dag:
  pre: [m1, m2]
  m1: [join]
  m2: [join]
"""
BROKEN = "models:\n  m1: {url: broken.mar}\n  m2: {url: echo.mar}\ndag:\n  m2: [m1]\n"


@pytest.fixture(scope="module")
def wars(tmp_path_factory):
    """Packs a specification with our functions as a `.war`, or as a folder of that name."""

    def make(store: Path, name: str, spec: str, functions: Path | None = HANDLERS / "nodes.py"):
        aside = tmp_path_factory.mktemp("spec")
        (aside / "spec.yaml").write_text(spec)
        return pack_war(name, aside / "spec.yaml", functions, store, force=True)

    return make


@pytest.fixture(scope="module", autouse=True)
def echo_in_the_store(model_store, tmp_path_factory):
    aside = tmp_path_factory.mktemp("aside")
    for name in ("echo", "broken"):
        handler = str(HANDLERS / f"{name}.py")
        pack(Parts(name, handler, "1.0"), aside).rename(model_store / f"{name}.mar")
    yield
    for name in ("echo", "broken"):
        (model_store / f"{name}.mar").unlink()


@pytest.fixture
def flow(server, model_store, wars):
    """Registers a specification; whatever is registered goes at the end."""

    def register(spec: str = DIAMOND, name: str = "flow", status: int = 200, **query):
        wars(model_store, name, spec)
        answer = server.manage("POST", "/workflows", url=f"{name}.war", **query)
        assert answer.status == status, answer.text
        return answer

    yield register
    for each in server.manage("GET", "/workflows").json["workflows"]:
        server.manage("DELETE", f"/workflows/{each['workflowName']}")
    for path in model_store.glob("*.war"):
        path.unlink()


def ask(server, name: str, body: bytes | str = b"", **headers: str):
    data = body.encode() if isinstance(body, str) else body
    return server.ask("inference", "POST", f"/wfpredict/{name}", data, **headers)


# -- the page ----------------------------------------------------------------------------


def test_register_predict_describe_list_unregister(server, flow):
    """
    The page's calls, each with its text (4.4).
    """
    answer = flow()
    assert answer.said == "Workflow flow has been registered and scaled successfully."

    asked = ask(server, "flow", "hi", x_request_id="one-of-ours")
    assert (asked.status, asked.header("content-type")) == (200, "application/json")
    assert asked.json == {"got": {"m1": "hi!", "m2": "hi!"}, "asked": "one-of-ours"}

    described = server.manage("GET", "/workflows/flow")
    assert described.json == [
        {
            "workflowName": "flow",
            "workflowUrl": "flow.war",
            "minWorkers": 1,
            "maxWorkers": 1,
            "batchSize": 8,
            "maxBatchDelay": 5,
            "workflowDag": "{pre=[m1, m2], m1=[join], m2=[join]}",
        }
    ]
    listed = server.manage("GET", "/workflows").json
    assert listed == {"workflows": [{"workflowName": "flow", "workflowUrl": "flow.war"}]}
    gone = server.manage("DELETE", "/workflows/flow")
    assert (gone.status, gone.said) == (200, 'Workflow "flow" unregistered')
    assert server.manage("GET", "/models/flow__pre").status == 404


def test_nodes_are_models_that_are_not_listed(server, flow):
    """
    `{workflow}__{node}`, with the specification's workers and batches; a function has one
    worker and no batches (4.2).
    """
    flow()

    m1, m2, pre = (server.describe(f"flow__{name}") for name in ("m1", "m2", "pre"))

    assert server.manage("GET", "/models").json["models"] == []
    assert (m1["batchSize"], m1["maxBatchDelay"], len(m1["workers"])) == (8, 5, 1)
    assert (m2["batchSize"], m2["maxWorkers"], len(m2["workers"])) == (1, 2, 2)
    assert (pre["batchSize"], pre["maxBatchDelay"], pre["modelVersion"]) == (1, 0, "1.0")
    refused = server.manage("DELETE", "/models/flow__m1")
    assert (refused.status, refused.json["message"]) == (
        400,
        "Model flow__m1 belongs to workflow flow; unregister that.",
    )


def test_several_leaves_make_one_object(server, flow):
    """
    By the names of the nodes (4.3).
    """
    flow("models: {}\ndag:\n  pre: [left, right]\n")

    answer = ask(server, "flow", "x")

    assert answer.json == {"left": {"left": "x!"}, "right": {"right": "x!"}}


def test_several_leaves_must_answer_with_objects(server, flow):
    """
    There is nothing to put a text into.
    """
    flow("models:\n  m1: {url: echo.mar}\ndag:\n  pre: [m1, right]\n")

    answer = ask(server, "flow", "x")

    assert answer.status == 503
    assert answer.json["message"] == "Node m1 did not answer with a JSON object."


def test_the_first_part_of_the_path_may_be_in_any_case(server, flow):
    """
    As with the peer (2.1).
    """
    flow("models: {}\ndag:\n  pre: [left]\n")

    assert server.ask("inference", "POST", "/WfPredict/flow", b"x").json == {"left": "x!"}


def test_pieces_of_the_last_node_come_as_they_are_made(server, flow):
    """
    A stream through a graph is a stream.
    """
    flow("models: {}\ndag:\n  pre: [pieces]\n")

    answer = ask(server, "flow", "abc")

    assert (answer.header("transfer-encoding"), answer.body) == ("chunked", b"abc!")


def test_a_large_body_reaches_the_nodes(server, flow):
    """
    It lies in the frontend's memory; a node is told where.
    """
    flow("models:\n  m1: {url: echo.mar}\ndag:\n  m1: [m2]\n  m2: []\n".replace("m2", "pre"))
    body = b"x" * 3_000_000

    answer = ask(server, "flow", body)

    assert (len(answer.body), answer.body[-1:]) == (3_000_001, b"!")


# -- when it fails --------------------------------------------------------------------------


def test_a_failing_node_is_named_in_the_peers_words(server, flow):
    """
    And in ours, with the request (4.3).
    """
    flow()

    answer = ask(server, "flow", "refuse", x_request_id="r-1")

    assert answer.status == 500
    assert answer.json == {
        "code": 500,
        "type": "InternalServerException",
        "message": "Error executing pre",
        "failure": {
            "message": "Node pre of workflow flow failed: Prediction failed",
            "node": "pre",
            "requestId": "r-1",
            "cause": "handler_failed",
        },
    }
    line = server.wait_logged("workflow node failed", node="pre", again=False)
    assert (line["request_id"], line["tries"]) == ("r-1", 2)


def test_a_node_is_tried_again_as_the_specification_says(server, flow):
    """
    Once more by default.
    """
    flow("models: {}\ndag:\n  pre: [flaky]\n")

    answer = ask(server, "flow", "name")

    assert (answer.status, answer.body) == (200, b"at last")


def test_a_node_that_takes_too_long_fails(server, flow):
    """
    `timeout-ms` is a try's, whatever `response_timeout` allows.
    """
    flow("models:\n  timeout-ms: 300\n  retry-attempts: 0\ndag:\n  pre: [slow]\n")

    answer = ask(server, "flow", "30")

    assert (answer.status, answer.json["message"]) == (500, "Error executing slow")
    assert answer.json["failure"]["cause"] == "deadline_exceeded"


def test_a_client_that_leaves_calls_the_nodes_off(server, flow):
    """
    What nobody waits for costs nothing.
    """
    flow("models:\n  timeout-ms: 60000\ndag:\n  pre: [slow]\n")
    with server.connect() as connection:
        connection.send(b"POST /wfpredict/flow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n2")
        wait_until(lambda: _nodes(server)["slow"] == 1, "the node is at work")

    wait_until(lambda: _nodes(server)["runs"] == 0, "the run has ended")


def _nodes(server):
    """Jobs in hand by node, and runs, as the picture shows them."""
    picture = server.manage("GET", "/workflows/flow", graph="svg").text
    found = {"runs": int(picture.split(" running,")[0].rpartition(">")[2])}
    for part in picture.split("<title>")[1:]:
        name = part.split(" (")[0]
        found[name] = int(part.split(" in hand")[0].rpartition(" ")[2])
    return found


NOT_FOUND = "WorkflowNotFoundException"
INVALID = "InvalidWorkflowException"
NO_DAG = "InvalidDAGException"


@pytest.mark.parametrize(
    ("url", "status", "kind", "message"),
    [
        (None, 400, "BadRequestException", "Parameter url is required."),
        ("no.war", 404, NOT_FOUND, "Workflow not found in workflow store: no.war"),
        ("../x.war", 404, NOT_FOUND, "Relative path is not allowed in url: ../x.war"),
        ("", 404, NOT_FOUND, "empty url"),
        (
            "http://127.0.0.1:1/mar_files/x.war",
            400,
            "DownloadArchiveException",
            "Failed to download archive from: http://127.0.0.1:1/mar_files/x.war",
        ),
        (
            "http://nobody.invalid/x.war",
            404,
            NOT_FOUND,
            "Given URL http://nobody.invalid/x.war does not match any allowed URL(s)",
        ),
    ],
)
def test_what_cannot_be_found_is_told_in_the_peers_words(server, url, status, kind, message):
    """
    Each row of 4.4.
    """
    query = {} if url is None else {"url": url}

    answer = server.manage("POST", "/workflows", **query)

    assert answer.json == {"code": status, "type": kind, "message": message}
    assert answer.status == status


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("models: {}\ndag:\n  pre: [pre]\n", NO_DAG, "Self loop exception"),
        ("models: {}\ndag:\n  pre: [join]\n  join: [pre]\n", NO_DAG, "loop exception"),
        (
            "models: {}\ndag:\n  pre: [join]\n  left: [join]\n",
            NO_DAG,
            "DAG should have only one start node",
        ),
        (
            "models: {}\ndag:\n  pre: [join]\n  join: [left]\n  left: [right]\n  right: [join]\n",
            NO_DAG,
            "Not a valid DAG",
        ),
    ],
)
def test_what_is_no_graph_is_refused_in_the_peers_words(flow, spec, kind, message):
    """
    Each validation of 4.2.
    """
    answer = flow(spec, status=400)

    assert answer.json == {"code": 400, "type": kind, "message": message}


def test_a_second_workflow_of_the_same_name_is_refused(flow):
    """
    409 (4.4).
    """
    flow()

    answer = flow(status=409)

    assert answer.json["message"] == "Workflow flow is already registered."


def test_the_name_of_the_call_wins(server, flow):
    """
    So one archive may be served under two names.
    """
    flow("models: {}\ndag:\n  pre: [join]\n")
    server.manage("POST", "/workflows", url="flow.war", workflow_name="other")

    assert ask(server, "other", "x").json["got"] == {"body": "x!"}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_workflow_is_not_found(server, method):
    """
    404 in any call (4.4).
    """
    managed = server.manage(method, "/workflows/nobody")
    asked = ask(server, "nobody")

    for answer in (managed, asked):
        assert answer.json == {
            "code": 404,
            "type": NOT_FOUND,
            "message": "Workflow not found: nobody",
        }


def test_other_methods_are_not_allowed(server):
    """
    405 (4.4).
    """
    assert server.manage("PUT", "/workflows/flow").status == 405
    assert server.manage("PATCH", "/workflows").status == 405


def test_a_registration_that_fails_leaves_nothing(server, flow):
    """
    All or nothing, with the peer's text for each node (4.4).
    """
    server.expect_error("load failed")
    answer = flow(BROKEN, status=500)

    assert (answer.json["type"], answer.json["message"]) == (
        "WorkflowException",
        "Workflow flow has failed to register. Failures: "
        "[Failed to start workers for model flow__m1 version: 1.0]",
    )
    wait_until(
        lambda: server.manage("GET", "/models/flow__m2").status == 404, "the other node is gone"
    )
    assert server.manage("GET", "/workflows").json["workflows"] == []
    flow(DIAMOND)


def test_a_node_without_its_archive_is_named(server, flow):
    """
    The text that registering the model itself would get, behind the node's name (4.4).
    """
    spec = "models:\n  m1: {url: gone.mar}\ndag:\n  m1: [join]\n"

    answer = flow(spec, status=500)

    assert answer.json["message"] == (
        "Workflow flow has failed to register. Failures: [Workflow Node flow__m1 failed to "
        "register. Details: Model not found at: gone.mar]"
    )


# -- stops and restarts --------------------------------------------------------------------


def test_workflows_are_there_again_after_a_restart(start_server, model_store, wars):
    """
    Also when the supervisor alone is killed, whose workers stay.
    """
    wars(model_store, "kept", DIAMOND)
    server = start_server()
    assert server.manage("POST", "/workflows", url="kept.war").status == 200
    before = {worker["pid"] for worker in server.workers("kept__m2")}

    server.supervisor.kill()
    wait_until(lambda: ask(server, "kept", "a").status == 200, "it answers again")

    assert {worker["pid"] for worker in server.workers("kept__m2")} == before
    listed = server.manage("GET", "/workflows").json["workflows"]
    assert [each["workflowName"] for each in listed] == ["kept"]
    (model_store / "kept.war").unlink()


def test_requests_in_the_graph_survive_the_supervisor(start_server, model_store, wars):
    """
    A run that had begun is begun again.
    """
    spec = "models:\n  timeout-ms: 60000\ndag:\n  pre: [slow]\n"
    wars(model_store, "kept", spec)
    server = start_server()
    assert server.manage("POST", "/workflows", url="kept.war").status == 200
    asked = server.later(ask, server, "kept", "1.0")
    picture = "/workflows/kept"
    wait_until(
        lambda: "1 running" in server.manage("GET", picture, graph="svg").text, "it is under way"
    )

    server.supervisor.kill()

    assert (asked.answer().status, asked.answer().body) == (200, b"slept")
    (model_store / "kept.war").unlink()


def test_a_workflow_store_of_its_own(start_server, wars, tmp_path):
    """
    `workflow_store` is where archives of workflows are looked for, and nothing else is.
    """
    wars(tmp_path, "apart", "models:\n  m1: {url: echo.mar}\ndag:\n  m1: [join]\n")
    server = start_server("--workflow-store", str(tmp_path))

    assert server.manage("POST", "/workflows", url="apart.war").status == 200

    assert json.loads(ask(server, "apart", "x").body)["got"] == {"body": "x"}


def test_registering_is_behind_the_switch_of_models(start_server):
    """
    Whoever may not register a model may not register ten at once.
    """
    server = start_server("--enable-model-api", "false")

    answer = server.manage("POST", "/workflows", url="flow.war")

    assert (answer.status, answer.json["type"]) == (405, "MethodNotAllowedException")
