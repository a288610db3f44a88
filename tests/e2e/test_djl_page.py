"""Every request of DJL Serving's management page, typed as it stands there, with its answer.

On a DJL listener beside TorchServe's three, over one registry; the page's
archives are folders with a `model.py` behind a loopback origin.
"""

from __future__ import annotations

import io
import json
import re
import tarfile

import pytest
from facts import wait_until

pytestmark = pytest.mark.slow

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
DJL = "https://resources.djl.ai"
MLP = f"{DJL}/test-models/mlp.tar.gz"
HANDLER = """
import os
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    output = Output()
    for i, item in enumerate(inputs.get_batches()):
        index = i if inputs.is_batch() else None
        output.add({"said": item.get_as_string(), "of": inputs.get_batch_size()}, batch_index=index)
    return output.add_property("x-worker", os.getpid())
"""


def packed(**files):
    """A `.tar.gz` with one folder, as the page's archives are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"mlp/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def server_flags(tmp_path_factory):
    config = tmp_path_factory.mktemp("config") / "config.properties"
    apis = ("inference", "management", "metrics")
    listeners = [f"http://127.0.0.1:0 torchserve {api}" for api in apis]
    listeners.append("http://127.0.0.1:0 djl inference+management+metrics")
    config.write_text(f"listeners={','.join(listeners)}\n")
    return ("--config", str(config), "--allowed-urls", r"http://127\.0\.0\.1:\d+/.*")


@pytest.fixture(scope="module", autouse=True)
def archives_at_the_origin(server_of_module):
    archive = packed(**{"model.py": HANDLER, "serving.properties": "engine=Python\n"})
    for folder in ("test-models", "test-workflows"):
        server_of_module.origin.files[f"/{folder}/mlp.tar.gz"] = archive


@pytest.fixture
def curl(server):
    """Run one of the page's lines on the DJL listener."""

    def run(line):
        line = line.replace("http://localhost:8080", server.addresses["djl/management"])
        for there in (DJL, DJL.replace(":", "%3A").replace("/", "%2F")):
            line = line.replace(there, server.origin.address)
        return server.curl(line)

    return run


@pytest.fixture
def djl(server):
    """One request on the DJL listener."""

    def ask(method, path, body=None, **headers):
        return server.ask("djl/management", method, path, body, **headers)

    return ask


def check_head(answer, status_line, length):
    """The page's head: these lines in this order; ours may stand between them."""
    shown = answer.shown
    assert shown[0] == status_line
    expected = [
        "content-type: application/json",
        "Pragma: no-cache",
        "Cache-Control: no-cache; no-store, must-revalidate, private",
        "Expires: Thu, 01 Jan 1970 00:00:00 UTC",
        f"content-length: {length}",
        "connection: keep-alive",
    ]
    assert sorted(line for line in shown if line in expected) == sorted(expected)
    assert any(re.fullmatch(f"x-request-id: {UUID}", line) for line in shown), shown


def wait_healthy(djl, model="mlp"):
    def is_healthy():
        answer = djl("GET", f"/models/{model}")
        return answer.status == 200 and answer.json["status"] == "Healthy"

    wait_until(is_healthy, f"{model} is healthy")


# -- register --------------------------------------------------------------------------


def test_register_a_model(curl, djl):
    """
    The page's first example; the call returns when a worker is ready.
    """
    answer = curl(
        'curl -X POST "http://localhost:8080/models?'
        'url=https%3A%2F%2Fresources.djl.ai%2Ftest-models%2Fmlp.tar.gz"'
    )

    assert answer.text == '{\n  "status": "Model \\"mlp\\" registered."\n}\n'
    assert djl("POST", "/predictions/mlp", b"hi").json == {"said": "hi", "of": 1}


def test_register_a_model_asynchronously(curl, djl):
    """
    "The asynchronous call will return before trying to create workers with HTTP code 202".
    """
    answer = curl(
        'curl -v -X POST "http://localhost:8080/models?'
        'url=https%3A%2F%2Fresources.djl.ai%2Ftest-models%2Fmlp.tar.gz&synchronous=false"'
    )

    assert answer.text == '{\n  "status": "Model \\"mlp\\" registration scheduled."\n}\n'
    # The page's own length belongs to the text of another release.
    check_head(answer, "HTTP/1.1 202 Accepted", len(answer.body))
    wait_healthy(djl)


def test_register_a_workflow(curl, djl):
    """
    The page's example is an archive of one model, which is a workflow of one node.
    """
    answer = curl(
        'curl -X POST "http://localhost:8080/workflows?'
        'url=https%3A%2F%2Fresources.djl.ai%2Ftest-workflows%2Fmlp.tar.gz"'
    )

    assert answer.text == '{\n  "status": "Workflow \\"mlp\\" registered."\n}\n'
    assert djl("GET", "/workflows").json == {"workflows": [{"workflowName": "mlp"}]}


def test_register_a_workflow_asynchronously(curl, djl):
    """
    As for models.
    """
    answer = curl(
        'curl -v -X POST "http://localhost:8080/workflows?'
        'url=https%3A%2F%2Fresources.djl.ai%2Ftest-workflows%2Fmlp.tar.gz&synchronous=false"'
    )

    assert answer.text == '{\n  "status": "Workflow \\"mlp\\" registration scheduled."\n}\n'
    check_head(answer, "HTTP/1.1 202 Accepted", len(answer.body))
    wait_healthy(djl)


# -- scale -----------------------------------------------------------------------------


@pytest.fixture
def mlp(curl):
    """The page's model, registered with one worker."""
    assert curl(f'curl -X POST "http://localhost:8080/models?url={MLP}"').status == 200


def test_scale(curl, djl, mlp):
    """
    "returns immediately with HTTP code 202"; the page shows it without asking for that.
    """
    answer = curl('curl -v -X PUT "http://localhost:8080/workflows/mlp?min_worker=3"')

    assert answer.text == '{\n  "status": "Worker updated"\n}\n'
    check_head(answer, "HTTP/1.1 202 Accepted", 33)
    wait_until(lambda: len(djl("GET", "/models/mlp").json["workers"]) == 3, "three workers")
    described = djl("GET", "/models/mlp").json
    assert (described["minWorkers"], described["maxWorkers"]) == (3, 3)


def test_scale_and_wait(djl, mlp):
    """
    "two different flavour of this API, synchronous vs asynchronous".
    """
    answer = djl("PUT", "/models/mlp?min_worker=2&max_worker=2&synchronous=true")

    assert (answer.status, answer.said) == (
        200,
        'Workflow "mlp" worker scaled. New Worker configuration min workers:2 max workers:2',
    )
    assert [worker["status"] for worker in djl("GET", "/models/mlp").json["workers"]] == [
        "READY",
        "READY",
    ]


def test_batches_and_idle_times_are_changed_without_touching_workers(djl, mlp):
    """
    The page's other parameters; what is not named stays.
    """
    (before,) = djl("GET", "/models/mlp").json["workers"]

    answer = djl("PUT", "/models/mlp?batch_size=4&max_batch_delay=2000&max_idle_time=7")

    described = djl("GET", "/models/mlp").json
    assert answer.status == 202
    assert [described[name] for name in ("batchSize", "maxBatchDelay", "maxIdleTime")] == [
        4,
        2000,
        7,
    ]
    assert described["minWorkers"] == 1
    assert [worker["id"] for worker in described["workers"]] == [before["id"]]


# -- describe --------------------------------------------------------------------------


def test_describe(curl, server, mlp):
    """
    The page's object, field by field; ours say more only when something is wrong.
    """
    answer = curl("curl http://localhost:8080/models/mlp")

    described = answer.json
    (worker,) = described.pop("workers")
    assert described == {
        "modelName": "mlp",
        "modelUrl": MLP.replace(DJL, server.origin.address),
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "maxBatchDelay": 100,
        "maxIdleTime": 60,
        "queueLength": 0,
        "status": "Healthy",
        "loadedAtStartup": False,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", worker.pop("startTime"))
    assert type(worker.pop("id")) is int
    assert worker == {"status": "READY", "gpu": False}
    assert curl("curl http://localhost:8080/workflows/mlp").json["modelName"] == "mlp"


# -- unregister ------------------------------------------------------------------------


@pytest.mark.parametrize("collection", ["models", "workflows"])
def test_unregister(curl, djl, mlp, collection):
    """
    The page's text, whatever the collection.
    """
    answer = curl(f"curl -X DELETE http://localhost:8080/{collection}/mlp")

    assert answer.text == '{\n  "status": "Workflow \\"mlp\\" unregistered"\n}\n'
    assert djl("GET", "/models/mlp").status == 404


# -- list ------------------------------------------------------------------------------


def test_list_workflows(curl, mlp):
    """
    The page's first list; a model is a workflow of one node.
    """
    answer = curl('curl "http://localhost:8080/workflows"')

    assert answer.json == {"workflows": [{"workflowName": "mlp"}]}


def test_list_models_page_by_page(curl, server, mlp):
    """
    The page's second list; later releases add the status.
    """
    answer = curl('curl "http://localhost:8080/models?limit=2&next_page_token=0"')

    assert answer.json == {
        "models": [
            {
                "modelName": "mlp",
                "modelUrl": MLP.replace(DJL, server.origin.address),
                "status": "READY",
            }
        ]
    }


# -- one registry ----------------------------------------------------------------------


def test_a_model_is_the_same_behind_every_listener(server, djl):
    """
    Registered through one dialect, it is served and described through the others.
    """
    assert server.manage("POST", "/models", url="noop.mar", initial_workers=1).status == 202
    wait_healthy(djl, "noop")

    assert djl("POST", "/predictions/noop", b"x").status == 200
    djl("PUT", "/models/noop?min_worker=2&max_worker=2&synchronous=true")
    assert server.describe("noop")["minWorkers"] == 2
    assert djl("DELETE", "/models/noop").status == 200
    assert server.manage("GET", "/models/noop").status == 404


def test_versions_take_turns(server, djl):
    """
    3.2: round-robin where no version is named; a path may name one.
    """
    for version in ("v1", "v2"):
        target = f"/models?url={server.origin.address}/test-models/mlp.tar.gz"
        assert djl("POST", f"{target}&model_version={version}").status == 200

    workers = [djl("POST", "/predictions/mlp", b"x").header("x-worker") for _ in range(6)]
    first = {djl("POST", "/predictions/mlp/v1", b"x").header("x-worker") for _ in range(3)}

    assert workers[:2] * 3 == workers
    assert len(set(workers)) == 2
    assert len(first) == 1
    listed = djl("GET", "/models").json["models"]
    assert [model["version"] for model in listed] == ["v1", "v2"]
    described = djl("GET", "/models/mlp").json
    assert [workflow["version"] for workflow in described] == ["v1", "v2"]
    assert json.loads(djl("GET", "/models/mlp/v2").body)["version"] == "v2"
    # All of them at once, the default one of other listeners as well.
    assert djl("DELETE", "/workflows/mlp").status == 200
    assert djl("GET", "/models").json == {"models": []}


def test_requests_of_a_batch_come_as_one_input(server, djl):
    """
    13.5, through the whole server.
    """
    url = f"{server.origin.address}/test-models/mlp.tar.gz"
    djl("POST", f"/models?url={url}&batch_size=3&max_batch_delay=20000")

    asked = [server.later(djl, "POST", "/predictions/mlp", str(i).encode()) for i in range(3)]

    answers = [each.answer().json for each in asked]
    assert sorted(answer["said"] for answer in answers) == ["0", "1", "2"]
    assert {answer["of"] for answer in answers} == {3}


def test_without_memory_nothing_is_downloaded(start_server, model_store, tmp_path):
    """
    `reserved_memory_mb` of the server: 507, and the origin has heard nothing.
    """
    config = tmp_path / "config.properties"
    config.write_text(
        "listeners=http://127.0.0.1:0 torchserve inference,http://127.0.0.1:0 torchserve "
        "management,http://127.0.0.1:0 torchserve metrics,http://127.0.0.1:0 djl management\n"
        f"reserved_memory_mb={1 << 30}\nallowed_urls=.*\n"
    )
    server = start_server("--config", str(config))
    url = "http://127.0.0.1:9/never/asked.tar.gz"

    answer = server.ask("djl/management", "POST", f"/models?url={url}")
    late = server.ask("djl/management", "POST", f"/models?url={url}&synchronous=false")

    assert (answer.status, late.status) == (507, 507)
    assert answer.json["type"] == "WlmOutOfMemoryException"
    assert answer.json["message"] == "No enough memory to load the model."
    # TorchServe's clients say nothing of memory.
    server.register("noop", "noop:handle")
