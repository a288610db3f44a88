"""Every request of TorchServe's management page, typed as it stands there, with its answer.

The lines are the page's; `curl` is the real one.  Only the host names are
swapped for the server's ports and for a loopback origin.
"""

from __future__ import annotations

import json
import re

import pytest

pytestmark = pytest.mark.slow

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
REGISTERED = (
    '{\n  "status": "Model \\"squeezenet_v1.1\\" Version: 1.0 registered with 0 initial '
    'workers. Use scale workers API to add workers for the model."\n}\n'
)
PROCESSING = '{\n  "status": "Processing worker updates..."\n}\n'
TORCHSERVE = "https://torchserve.pytorch.org"


@pytest.fixture(scope="module", autouse=True)
def squeezenet_at_the_origin(server_of_module, pack_model):
    """The page's archive calls itself squeezenet_v1.1 in one example, squeezenet1_1 in another."""
    packed = pack_model("squeezenet_v1.1").read_bytes()
    for folder in ("/mar_files", "/sse-test"):
        server_of_module.origin.files[f"{folder}/squeezenet_v1.1.mar"] = packed


def check_head(answer, status_line, length=None):
    """The page's head: these lines in this order; ours may stand between them.

    `length` is the page's content-length where the page's own text has it.
    """
    shown = answer.shown
    assert shown[0] == status_line
    assert re.fullmatch(f"x-request-id: {UUID}", shown[2]), shown
    expected = [
        "content-type: application/json",
        shown[2],
        f"content-length: {length if length is not None else len(answer.body)}",
        "connection: keep-alive",
    ]
    assert [line for line in shown[1:] if line in expected] == expected


def register_noop(server, workers=1, archive="noop.mar"):
    answer = server.manage(
        "POST", "/models", url=archive, initial_workers=workers, synchronous="true"
    )
    assert answer.status == 200, answer.text


# -- register --------------------------------------------------------------------------


def test_register_from_a_url_says_that_workers_are_missing(server):
    """
    The page's first example.
    """
    answer = server.curl(
        f'curl -X POST  "http://localhost:8081/models?url={TORCHSERVE}/mar_files/squeezenet_v1.1.mar"'
    )

    assert answer.text == REGISTERED
    check_head(answer, "HTTP/1.1 200 OK")


def test_register_from_the_model_store(server):
    """
    "a local model archive (.mar); the file must be in the model_store folder".
    """
    answer = server.curl('curl -X POST "http://localhost:8081/models?url=noop.mar"')

    assert answer.said == (
        'Model "noop" Version: 1.0 registered with 0 initial workers. '
        "Use scale workers API to add workers for the model."
    )


def test_register_an_encrypted_archive_signs_its_download(server):
    """
    With s3_sse_kms=true the credentials of the environment sign the request.
    """
    answer = server.curl(
        f'curl -X POST  "http://localhost:8081/models?url={TORCHSERVE}/sse-test/squeezenet_v1.1.mar'
        '&s3_sse_kms=true"'
    )

    assert answer.text == REGISTERED
    path, headers = server.origin.requests[-1]
    assert path == "/sse-test/squeezenet_v1.1.mar"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-west-1/s3/aws4_request" in headers["authorization"]


def test_asynchronous_register_answers_202_before_workers_are_there(server):
    """
    "The asynchronous call returns with HTTP code 202 before trying to create workers."
    """
    answer = server.curl(
        'curl -v -X POST "http://localhost:8081/models?initial_workers=1&synchronous=false&'
        f'url={TORCHSERVE}/mar_files/squeezenet1_1.mar"'
    )

    assert answer.text == PROCESSING
    check_head(answer, "HTTP/1.1 202 Accepted", 47)


def test_synchronous_register_answers_200_after_workers_are_there(server):
    """
    "The synchronous call returns with HTTP code 200 after all workers have been adjusted."
    """
    answer = server.curl(
        'curl -v -X POST "http://localhost:8081/models?initial_workers=1&synchronous=true&'
        f'url={TORCHSERVE}/mar_files/squeezenet1_1.mar"'
    )

    assert answer.text == (
        '{\n  "status": "Model \\"squeezenet1_1\\" Version: 1.0 registered with 1 initial '
        'workers"\n}\n'
    )
    check_head(answer, "HTTP/1.1 200 OK", 89)
    assert [worker["status"] for worker in server.workers("squeezenet1_1")] == ["READY"]


def test_register_without_synchronous_does_not_wait(server):
    """
    "synchronous - ... The default value is false."
    """
    answer = server.curl(
        'curl -v -X POST "http://localhost:8081/models?url=noop.mar&initial_workers=1"'
    )

    assert answer.text == PROCESSING
    check_head(answer, "HTTP/1.1 202 Accepted", 47)


def test_register_takes_every_parameter_of_the_page(server):
    """
    model_name, handler, runtime, batch_size, max_batch_delay, response_timeout.
    """
    answer = server.curl(
        'curl -X POST "http://localhost:8081/models?url=noop.mar&model_name=renamed'
        "&handler=noop:handle&runtime=PYTHON&batch_size=8&max_batch_delay=50"
        '&initial_workers=1&synchronous=true&response_timeout=60"'
    )

    assert answer.said == 'Model "renamed" Version: 1.0 registered with 1 initial workers'
    record = server.describe("renamed")
    assert (record["batchSize"], record["maxBatchDelay"]) == (8, 50)
    assert (record["responseTimeout"], record["runtime"]) == (60, "python")


def test_register_has_the_defaults_of_the_page(server):
    """
    batch_size 1, max_batch_delay 100 ms, initial_workers 0, response_timeout 120 s.
    """
    server.curl('curl -X POST "http://localhost:8081/models?url=noop.mar"')

    record = server.describe("noop")
    assert (record["batchSize"], record["maxBatchDelay"], record["minWorkers"]) == (1, 100, 0)
    assert record["responseTimeout"] == 120


def test_register_reads_a_json_body_too(server):
    """
    Issue point 3: "Query or JSON body".
    """
    answer = server.curl(
        "curl -X POST http://localhost:8081/models -H 'Content-Type: application/json' "
        '-d \'{"url": "noop.mar", "model_name": "j", "batch_size": 2}\''
    )

    assert answer.said.startswith('Model "j" Version: 1.0 registered')
    assert server.describe("j")["batchSize"] == 2


@pytest.mark.parametrize("url", ["tarred.tar.gz", "noop-v1.0"])
def test_register_takes_a_tar_and_a_folder(server, url):
    """
    Issue point 3: `.tar.gz` and a plain directory.
    """
    answer = server.curl(
        f'curl -X POST "http://localhost:8081/models?url={url}&initial_workers=1&synchronous=true"'
    )

    assert answer.status == 200
    model = server.manage("GET", "/models").json["models"][0]["modelName"]
    assert server.predict(model).body == b"OK"


def test_register_needs_no_archive_for_a_handler_on_the_python_path(server):
    """
    Issue point 3: `handler=module:function`, url left out.
    """
    answer = server.curl(
        'curl -X POST "http://localhost:8081/models?model_name=n&handler=noop:handle'
        '&initial_workers=1&synchronous=true"'
    )

    assert answer.said == 'Model "n" Version: 1.0 registered with 1 initial workers'
    assert server.predict("n").body == b"OK"


# -- scale -----------------------------------------------------------------------------


def test_asynchronous_scale_answers_202_at_once(server):
    """
    The page's example; the workers come after the answer.
    """
    register_noop(server)

    answer = server.curl('curl -v -X PUT "http://localhost:8081/models/noop?min_worker=3"')

    assert answer.text == PROCESSING
    check_head(answer, "HTTP/1.1 202 Accepted", 47)


def test_asynchronous_scale_comes_true(server, until):
    """
    "TorchServe will try to maintain this minimum".
    """
    register_noop(server)

    server.curl('curl -v -X PUT "http://localhost:8081/models/noop?min_worker=2"')

    until(
        lambda: [w["status"] for w in server.workers("noop")] == ["READY"] * 2,
        "two workers are ready",
    )


def test_synchronous_scale_answers_200_when_it_is_done(server):
    """
    The page's example (its content-length is that of a longer model name).
    """
    register_noop(server)

    answer = server.curl(
        'curl -v -X PUT "http://localhost:8081/models/noop?min_worker=3&synchronous=true"'
    )

    assert answer.text == '{\n  "status": "Workers scaled to 3 for model: noop"\n}\n'
    check_head(answer, "HTTP/1.1 200 OK")
    assert [worker["status"] for worker in server.workers("noop")] == ["READY"] * 3


def test_scaling_one_version_names_it(server):
    """
    PUT /models/{model_name}/{version}; the other version keeps its workers.
    """
    register_noop(server)
    register_noop(server, workers=0, archive="noop_2.mar")

    answer = server.curl(
        'curl -v -X PUT "http://localhost:8081/models/noop/2.0?min_worker=3&synchronous=true"'
    )

    assert answer.text == (
        '{\n  "status": "Workers scaled to 3 for model: noop, version: 2.0"\n}\n'
    )
    check_head(answer, "HTTP/1.1 200 OK")
    assert len(server.describe("noop", "2.0")["workers"]) == 3
    assert len(server.describe("noop", "1.0")["workers"]) == 1


def test_scale_has_the_defaults_of_the_page(server):
    """
    min_worker 1, max_worker as min_worker.
    """
    register_noop(server, workers=0)

    answer = server.curl('curl -X PUT "http://localhost:8081/models/noop?synchronous=true"')

    assert answer.said == "Workers scaled to 1 for model: noop"
    record = server.describe("noop")
    assert (record["minWorkers"], record["maxWorkers"]) == (1, 1)


def test_scale_down_answers_when_the_surplus_is_gone(server, until):
    """
    "returns with HTTP code 200 after all workers have been adjusted" is true downwards too.
    """
    register_noop(server, workers=3)
    pids = [worker["pid"] for worker in server.workers("noop")]

    answer = server.curl(
        'curl -X PUT "http://localhost:8081/models/noop?min_worker=1&synchronous=true"'
    )

    assert answer.said == "Workers scaled to 1 for model: noop"
    assert [worker["pid"] for worker in server.workers("noop")] == pids[:1]
    running = {process.pid for process in server.tree()}
    assert running.isdisjoint(pids[1:])


# -- describe --------------------------------------------------------------------------

WORKER = {"id", "startTime", "status", "gpu", "memoryUsage"}


def record_of_the_page(version, archive):
    return {
        "modelName": "noop",
        "modelVersion": version,
        "modelUrl": archive,
        "engine": "Torch",
        "runtime": "python",
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "maxBatchDelay": 100,
    }


def check_record(record, version, archive):
    """The page's fields with the page's values, in the page's order; more may follow."""
    expected = record_of_the_page(version, archive)
    assert [*record.items()][: len(expected)] == [*expected.items()]
    (worker,) = record["workers"]
    assert worker.keys() >= WORKER
    assert re.fullmatch(r"9\d{3}", worker["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", worker["startTime"])
    assert (worker["status"], worker["gpu"]) == ("READY", False)
    assert worker["memoryUsage"] > 1_000_000
    assert record["status"] == "Healthy"


def test_describe_shows_the_default_version(server):
    """
    GET /models/{model_name}.
    """
    register_noop(server)
    register_noop(server, archive="noop_2.mar")

    answer = server.curl("curl http://localhost:8081/models/noop")

    (record,) = answer.json
    check_record(record, "1.0", "noop.mar")
    assert answer.text == json.dumps(answer.json, indent=2) + "\n"


def test_describe_shows_one_version(server):
    """
    GET /models/{model_name}/{version}.
    """
    register_noop(server)
    register_noop(server, archive="noop_2.mar")

    answer = server.curl("curl http://localhost:8081/models/noop/2.0")

    (record,) = answer.json
    check_record(record, "2.0", "noop_2.mar")


def test_describe_shows_all_versions(server):
    """
    GET /models/{model_name}/all.
    """
    register_noop(server)
    register_noop(server, archive="noop_2.mar")

    answer = server.curl("curl http://localhost:8081/models/noop/all")

    first, second = answer.json
    check_record(first, "1.0", "noop.mar")
    check_record(second, "2.0", "noop_2.mar")


# -- unregister, list, set-default, OPTIONS --------------------------------------------


def test_unregister_a_version_frees_its_workers(server):
    """
    DELETE /models/{model_name}/{version}; the text names the model alone.
    """
    register_noop(server)
    (worker,) = server.workers("noop")

    answer = server.curl("curl -X DELETE http://localhost:8081/models/noop/1.0")

    assert answer.text == '{\n  "status": "Model \\"noop\\" unregistered"\n}\n'
    check_head(answer, "HTTP/1.1 200 OK")
    assert worker["pid"] not in [process.pid for process in server.tree()]
    assert server.predict("noop").status == 404


def register_four(server):
    for url, name in (
        ("alexnet.mar", "alexnet"),
        ("densenet161.mar", "densenet161"),
        ("noop-v1.0", "noop"),
        ("noop-v0.1", "noop_v0.1"),
    ):
        assert server.manage("POST", "/models", url=url, model_name=name).status == 200


def test_list_shows_every_model_once(server):
    """
    GET /models: default versions, sorted by name, without a token when that is all.
    """
    register_four(server)

    answer = server.curl('curl "http://localhost:8081/models"')

    assert answer.text == (
        '{\n  "models": [\n'
        '    {\n      "modelName": "alexnet",\n      "modelUrl": "alexnet.mar"\n    },\n'
        '    {\n      "modelName": "densenet161",\n      "modelUrl": "densenet161.mar"\n    },\n'
        '    {\n      "modelName": "noop",\n      "modelUrl": "noop-v1.0"\n    },\n'
        '    {\n      "modelName": "noop_v0.1",\n      "modelUrl": "noop-v0.1"\n    }\n'
        "  ]\n}\n"
    )
    check_head(answer, "HTTP/1.1 200 OK")


def test_list_gives_the_page_that_was_asked_for(server):
    """
    The page's own example, letter by letter.
    """
    register_four(server)

    answer = server.curl('curl "http://localhost:8081/models?limit=2&next_page_token=2"')

    assert answer.text == (
        '{\n  "nextPageToken": "4",\n  "models": [\n'
        '    {\n      "modelName": "noop",\n      "modelUrl": "noop-v1.0"\n    },\n'
        '    {\n      "modelName": "noop_v0.1",\n      "modelUrl": "noop-v0.1"\n    }\n'
        "  ]\n}\n"
    )


def test_following_the_tokens_shows_every_model_exactly_once(server):
    """
    "This value is return by a previous API call."
    """
    register_four(server)

    names, token = [], "0"
    while token is not None:
        page = server.curl(
            f'curl "http://localhost:8081/models?limit=1&next_page_token={token}"'
        ).json
        names += [model["modelName"] for model in page["models"]]
        token = page.get("nextPageToken")

    assert names == ["alexnet", "densenet161", "noop", "noop_v0.1"]


def test_set_default_changes_which_version_answers(server):
    """
    PUT /models/{model_name}/{version}/set-default.
    """
    register_noop(server)
    register_noop(server, archive="noop_2.mar")

    answer = server.curl("curl -v -X PUT http://localhost:8081/models/noop/2.0/set-default")

    assert answer.said == 'Default version successfully updated for model "noop" to "2.0"'
    check_head(answer, "HTTP/1.1 200 OK")
    assert server.describe("noop")["modelVersion"] == "2.0"


@pytest.mark.parametrize(
    ("port", "operations"),
    [
        (8080, {"apiDescription", "ping", "predictions", "version_predictions"}),
        (
            8081,
            {
                "apiDescription",
                "listModels",
                "registerModel",
                "describeModel",
                "version_describeModel",
                "setAutoScale",
                "version_setAutoScale",
                "unregisterModel",
                "version_unregisterModel",
                "setDefault",
            },
        ),
    ],
)
def test_options_describes_the_api(server, port, operations):
    """
    "To view a full list of inference and management APIs"; OpenAPI 3.0.1.
    """
    answer = server.curl(f"curl -X OPTIONS http://localhost:{port}")

    document = answer.json
    assert document["openapi"] == "3.0.1"
    assert document["info"]["title"] == "TorchServe APIs"
    found = {
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    }
    assert found >= operations
    check_head(answer, "HTTP/1.1 200 OK")
