"""Every request of MMS's management page, typed as it stands there, with its answer.

The lines are the page's; `curl` is the real one.  Only the host names are
swapped for the server's ports and for a loopback origin.  The same server
speaks TorchServe elsewhere, over the same registry.
"""

from __future__ import annotations

import json
import re
import zipfile
from urllib.parse import quote

import pytest

pytestmark = pytest.mark.slow

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
UPDATED = '{\n  "status": "Worker updated"\n}\n'
SCALED = '{\n  "status": "Worker scaled"\n}\n'
S3 = "https%3A%2F%2Fs3.amazonaws.com%2Fmodel-server%2Fmodel_archive_1.0%2Fsqueezenet_v1.1.mar"
AT_THE_ORIGIN = "/mar_files/model_archive_1.0/squeezenet_v1.1.mar"
HANDLER = "def handle(data, context):\n    return data and ['OK'] * len(data)\n"
SERVICE = """
from mms.model_service.mxnet_model_service import SingleNodeService

class Noop(SingleNodeService):
    def _inference(self, data):
        return ["OK"]
"""
LEGACY = {
    "Engine": {"MXNet": 0.12},
    "Model": {"Model-Name": "noop", "Service": "noop.py", "Signature": "signature.json"},
}


def manifest(name):
    return {
        "runtime": "python",
        "modelServerVersion": "1.0",
        "implementationVersion": "1.0",
        "specificationVersion": "1.0",
        "model": {"modelName": name, "handler": "service:handle"},
    }


@pytest.fixture(scope="module")
def server_flags():
    free = "http://127.0.0.1:0"
    return (
        "--listeners",
        f"{free} mms inference, {free} mms management, {free} torchserve",
    )


@pytest.fixture(scope="module", autouse=True)
def archives_of_the_page(server_of_module, model_store, tmp_path_factory):
    """squeezenet_v1.1 as MMS's archiver makes it, at the origin; noop of the 0.x days, here."""
    folder = tmp_path_factory.mktemp("mms")
    with zipfile.ZipFile(folder / "new.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest("squeezenet_v1.1")))
        archive.writestr("service.py", HANDLER)
    server_of_module.origin.files[AT_THE_ORIGIN] = (folder / "new.mar").read_bytes()
    before = (model_store / "noop.mar").read_bytes()
    with zipfile.ZipFile(model_store / "noop.mar", "w") as archive:
        archive.writestr("MANIFEST.json", json.dumps(LEGACY))
        archive.writestr("noop.py", SERVICE)
        archive.writestr("signature.json", '{"inputs": [{"data_name": "x"}]}')
    yield
    (model_store / "noop.mar").write_bytes(before)


def curl(server, line):
    return server.curl(line.replace(S3, quote(server.origin.address + AT_THE_ORIGIN, safe="")))


def check_head(answer, status_line, length=None):
    """The page's head: these lines in this order; ours may stand between them."""
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


def register_noop(server, workers=1, **query):
    answer = server.manage(
        "POST", "/models", url="noop.mar", initial_workers=workers, synchronous="true", **query
    )
    assert answer.status == 200, answer.text


def described(server, model="noop"):
    return server.manage("GET", f"/models/{model}").json


# -- register --------------------------------------------------------------------------


def test_register_from_a_url(server):
    """
    The page's first example.
    """
    answer = curl(server, f'curl -X POST "http://localhost:8081/models?url={S3}"')

    assert answer.text == '{\n  "status": "Model \\"squeezenet_v1.1\\" registered"\n}\n'
    check_head(answer, "HTTP/1.1 200 OK")


def test_asynchronous_register_answers_202_before_workers_are_there(server):
    """
    "The asynchronous call will return before trying to create workers with HTTP code 202".
    """
    answer = curl(
        server,
        'curl -v -X POST "http://localhost:8081/models?initial_workers=1&synchronous=false'
        f'&url={S3}"',
    )

    assert answer.text == UPDATED
    check_head(answer, "HTTP/1.1 202 Accepted", 33)


def test_synchronous_register_answers_200_after_workers_are_there(server):
    """
    "The synchronous call will return after all workers has be adjusted with HTTP code 200."
    """
    answer = curl(
        server,
        'curl -v -X POST "http://localhost:8081/models?initial_workers=1&synchronous=true'
        f'&url={S3}"',
    )

    assert answer.text == SCALED
    check_head(answer, "HTTP/1.1 200 OK", 32)
    (worker,) = described(server, "squeezenet_v1.1")["workers"]
    assert worker["status"] == "READY"
    assert server.predict("squeezenet_v1.1").body == b"OK"


def test_register_without_synchronous_does_not_wait(server):
    """
    "synchronous - ... The default value is false."
    """
    answer = curl(server, f'curl -X POST "http://localhost:8081/models?url={S3}&initial_workers=1"')

    assert (answer.status, answer.text) == (202, UPDATED)


def test_register_takes_every_parameter_of_the_page(server):
    """
    model_name, handler, runtime, batch_size, max_batch_delay, response_timeout.
    """
    answer = curl(
        server,
        f'curl -X POST "http://localhost:8081/models?url={S3}&model_name=renamed'
        "&handler=service:handle&runtime=PYTHON&batch_size=8&max_batch_delay=50"
        '&initial_workers=1&synchronous=true&response_timeout=60"',
    )

    assert answer.text == SCALED
    record = described(server, "renamed")
    assert (record["batchSize"], record["maxBatchDelay"]) == (8, 50)
    assert record["runtime"] == "python"
    # Seconds, as the page says.
    assert server.describe("renamed")["responseTimeout"] == 60


def test_register_has_the_defaults_of_the_page(server):
    """
    batch_size 1, max_batch_delay 100 ms, initial_workers 0, response_timeout 120 s.
    """
    curl(server, f'curl -X POST "http://localhost:8081/models?url={S3}"')

    record = described(server, "squeezenet_v1.1")
    assert (record["batchSize"], record["maxBatchDelay"], record["minWorkers"]) == (1, 100, 0)
    assert record["workers"] == []
    assert server.describe("squeezenet_v1.1")["responseTimeout"] == 120
    # "MMS will not run inference until there is at least one work assigned."
    assert server.predict("squeezenet_v1.1").json == {
        "code": 503,
        "type": "ServiceUnavailableException",
        "message": "No worker is available to serve request for model: squeezenet_v1.1. "
        "Consider increasing job queue size.",
    }


def test_a_name_is_taken_whatever_the_version(server):
    """
    There are none here, so TorchServe's second version of a model is a conflict.
    """
    register_noop(server)

    answer = server.manage("POST", "/models", url="noop_2.mar")

    assert answer.json == {
        "code": 409,
        "type": "ConflictStatusException",
        "message": "Model noop is already registered.",
    }


# -- scale -----------------------------------------------------------------------------


def test_asynchronous_scale_answers_202_at_once(server, until):
    """
    The page's example; the workers come after the answer.
    """
    register_noop(server)

    answer = curl(server, 'curl -v -X PUT "http://localhost:8081/models/noop?min_worker=3"')

    assert answer.text == UPDATED
    check_head(answer, "HTTP/1.1 202 Accepted", 33)
    until(
        lambda: [w["status"] for w in described(server)["workers"]] == ["READY"] * 3,
        "three workers are ready",
    )


def test_synchronous_scale_answers_200_when_it_is_done(server):
    """
    The page's example.
    """
    register_noop(server)

    answer = curl(
        server, 'curl -v -X PUT "http://localhost:8081/models/noop?min_worker=3&synchronous=true"'
    )

    assert answer.text == SCALED
    check_head(answer, "HTTP/1.1 200 OK", 32)
    assert [worker["status"] for worker in described(server)["workers"]] == ["READY"] * 3


def test_scale_takes_every_parameter_of_the_page(server):
    """
    min_worker, max_worker, number_gpu, synchronous, timeout; what is left runs on CPU.
    """
    register_noop(server)

    answer = curl(
        server,
        'curl -X PUT "http://localhost:8081/models/noop?min_worker=2&max_worker=2'
        '&number_gpu=1&synchronous=true&timeout=10"',
    )

    assert answer.text == SCALED
    record = described(server)
    assert (record["minWorkers"], record["maxWorkers"], record["numberGpu"]) == (2, 2, 1)
    assert len(record["workers"]) == 2


# -- describe, unregister, list, OPTIONS ------------------------------------------------


def test_describe_shows_an_object_with_the_pages_fields(server):
    """
    Its values are those of an archive of the 0.x days: version `snapshot`, engine MXNet.
    """
    register_noop(server)

    answer = curl(server, "curl http://localhost:8081/models/noop")

    page = {
        "modelName": "noop",
        "modelVersion": "snapshot",
        "modelUrl": "noop.mar",
        "engine": "MXNet",
        "runtime": "python",
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "maxBatchDelay": 100,
    }
    record = answer.json
    assert [*record.items()][: len(page)] == [*page.items()]
    (worker,) = record["workers"]
    assert [*worker] == ["id", "startTime", "status", "gpu", "memoryUsage"]
    assert re.fullmatch(r"9\d{3}", worker["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", worker["startTime"])
    assert (worker["status"], worker["gpu"]) == ("READY", False)
    assert worker["memoryUsage"] > 1_000_000
    assert answer.text == json.dumps(record, indent=2) + "\n"
    assert server.predict("noop", b"x").body == b"OK"


def test_unregister_takes_the_model_away(server):
    """
    The page's example; and all versions, of which other dialects may know some.
    """
    register_noop(server)
    for version in ("2.0", "3.0"):
        other = server.ask(
            "torchserve/management", "POST", f"/models?url=noop_2.mar&model_version={version}"
        )
        assert other.status == 200, other.text

    answer = curl(server, "curl -X DELETE http://localhost:8081/models/noop")

    assert answer.text == '{\n  "status": "Model \\"noop\\" unregistered"\n}\n'
    check_head(answer, "HTTP/1.1 200 OK")
    assert server.manage("GET", "/models/noop").json["type"] == "ModelNotFoundException"
    assert server.ask("torchserve/management", "GET", "/models/noop/all").status == 404


def register_four(server):
    for url, name in (
        ("alexnet.mar", "alexnet"),
        ("densenet161.mar", "densenet161"),
        ("noop-v1.0", "noop"),
        ("noop-v0.1", "noop_v0.1"),
    ):
        assert server.manage("POST", "/models", url=url, model_name=name).status == 200


def test_list_gives_the_page_that_was_asked_for(server):
    """
    The page's own example, letter by letter.
    """
    register_four(server)

    answer = curl(server, 'curl "http://localhost:8081/models?limit=2&next_page_token=2"')

    assert answer.text == (
        '{\n  "nextPageToken": "4",\n  "models": [\n'
        '    {\n      "modelName": "noop",\n      "modelUrl": "noop-v1.0"\n    },\n'
        '    {\n      "modelName": "noop_v0.1",\n      "modelUrl": "noop-v0.1"\n    }\n'
        "  ]\n}\n"
    )


def test_list_shows_every_model_once(server):
    """
    `curl "http://localhost:8081/models"`.
    """
    register_four(server)

    answer = curl(server, 'curl "http://localhost:8081/models"')

    names = [model["modelName"] for model in answer.json["models"]]
    assert names == ["alexnet", "densenet161", "noop", "noop_v0.1"]
    assert "nextPageToken" not in answer.json
    check_head(answer, "HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("port", "operations"),
    [
        (8080, {"apiDescription", "ping", "predictions", "invocations"}),
        (
            8081,
            {
                "apiDescription",
                "listModels",
                "registerModel",
                "describeModel",
                "setAutoScale",
                "unregisterModel",
            },
        ),
    ],
)
def test_options_describes_the_api(server, port, operations):
    """
    "To view all inference APIs", "To view all management APIs"; OpenAPI 3.0.1.
    """
    answer = curl(server, f"curl -X OPTIONS http://localhost:{port}")

    document = answer.json
    assert document["openapi"] == "3.0.1"
    found = {
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
    }
    assert found >= operations
    check_head(answer, "HTTP/1.1 200 OK")


# -- one registry, two dialects ---------------------------------------------------------


def test_what_one_dialect_registers_the_other_serves_and_describes(server):
    """
    The same model, each in its own words.
    """
    register_noop(server)

    (seen,) = server.ask("torchserve/management", "GET", "/models/noop").json
    answer = server.ask("torchserve/inference", "POST", "/predictions/noop/snapshot", b"x")

    own = described(server)
    assert seen["modelVersion"] == own["modelVersion"] == "snapshot"
    assert [w["id"] for w in seen["workers"]] == [w["id"] for w in own["workers"]]
    assert answer.body == b"OK"
    # A second segment is a version there, and nothing here.
    assert server.ask("inference", "POST", "/predictions/noop/9.9", b"x").body == b"OK"


def test_ping_counts_workers(server):
    """
    5.1: always 200.
    """
    register_noop(server)

    assert server.ask("inference", "GET", "/ping").said == "Healthy"
