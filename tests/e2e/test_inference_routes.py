"""Every way to a prediction through the whole chain: contracts/torchserve.md 2.1-2.5, 2.8, 2.10."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.slow

JSON = "application/json"


@pytest.fixture
def probe(server):
    """A model that tells what it was given."""
    server.register("probe", "probe:handle")
    return server


@pytest.mark.parametrize(
    ("path", "explain", "url_path"),
    [
        ("/predictions/probe", "False", ""),
        ("/explanations/probe", "True", ""),
        ("/explanations/probe/1.0/why/not", "True", "why/not"),
        ("/v1/models/probe:predict", "False", None),
        ("/v1/models/probe:explain", "True", None),
        ("/v2/models/probe/infer", "False", None),
        ("/v2/models/probe/explain", "True", None),
        ("/probe/predict", None, None),
        ("/probe/1.0/predict", None, None),
        ("/models/probe/invoke", None, None),
        ("/invocations?model_name=probe", None, None),
    ],
)
def test_handler_learns_which_way_it_was_asked(probe, path, explain, url_path):
    """
    By the headers that the route adds, and no others (2.5).
    """
    answer = probe.ask("inference", "POST", path, b'{"a": 1}', content_type=JSON)

    headers = answer.json["headers"]
    assert answer.json["data"]["body"] == ["dict", {"a": 1}]
    assert (headers.get("explain"), headers.get("url_path")) == (explain, url_path)


def test_old_routes_hand_the_query_over_as_bytes(probe):
    """
    2.3: in order before the body, and the last of equal names wins.
    """
    answer = probe.curl(
        "curl -F body=form 'http://localhost:8080/probe/predict?a=1&b=%C3%A9&a=2&body=query'"
    )

    assert answer.json["data"] == {
        "a": ["bytearray", "2"],
        "b": ["bytearray", "Ã©"],
        "body": ["bytearray", "form"],
    }


def test_invocations_need_a_model(server):
    """
    1.6: nothing was loaded at start, and nothing names one.
    """
    answer = server.ask("inference", "POST", "/invocations", b"x")

    assert (answer.status, answer.json["type"]) == (400, "BadRequestException")
    assert answer.json["message"] == "Parameter model_name is required."


def test_invocations_mean_the_only_model_of_the_start(start_server):
    """
    2.3; it is meant even when others were registered later, or when it is gone.
    """
    server = start_server("--load-models", "noop.mar", "--default-workers-per-model", "1")
    server.register("other", "probe:handle")

    meant = server.ask("inference", "POST", "/invocations", b"x")
    named = server.ask("inference", "POST", "/invocations?model_name=other", b"x")
    server.manage("DELETE", "/models/noop")
    gone = server.ask("inference", "POST", "/invocations", b"x")

    assert meant.body == b"OK"
    assert named.json["data"]["model_name"] == ["bytearray", "other"]
    assert (gone.status, gone.json["message"]) == (404, "Model not found: noop")


def test_decoding_can_be_switched_off(start_server):
    """
    2.4: `decode_input_request=false`, as in SageMaker's containers.
    """
    server = start_server("--decode-input-request", "false")
    server.register("probe", "probe:handle")

    answer = server.predict("probe", b'{"a": 1}', content_type=JSON)

    assert answer.json["data"] == {"body": ["bytearray", '{"a": 1}']}


# -- envelopes -------------------------------------------------------------------------


def test_kserve_clients_are_served_through_envelopes(start_server):
    """
    7.6, with the routes that KServe uses.
    """
    server = start_server("--service-envelope", "kserve")
    server.register("m", "instances:handle", batch_size=4, max_batch_delay=50)

    asked = [
        server.later(
            server.ask,
            "inference",
            "POST",
            "/v1/models/m:predict",
            json.dumps({"instances": [i, 10 * i]}).encode(),
            content_type=JSON,
        )
        for i in (1, 2, 3)
    ]
    explained = server.ask(
        "inference", "POST", "/v1/models/m:explain", b'{"instances": ["x"]}', content_type=JSON
    )  # while the others wait for company
    refused = server.ask("inference", "POST", "/v1/models/m:predict", b"[]", content_type=JSON)

    assert [each.answer().json for each in asked] == [
        {"predictions": [2, 20]},
        {"predictions": [4, 40]},
        {"predictions": [6, 60]},
    ]
    assert explained.json == {"explanations": ["str"]}
    assert (refused.status, refused.json["code"]) == (400, 400)


def test_open_inference_protocol_over_http(start_server):
    """
    2.8, 7.6: what the server is, and tensors in and out.
    """
    server = start_server("--service-envelope", "kservev2", "--ts-open-inference-protocol", "true")
    server.register("m", "instances:handle")
    tensor = {"name": "x", "shape": [1], "datatype": "INT64", "data": [21]}

    answer = server.ask(
        "inference",
        "POST",
        "/v2/models/m/infer",
        json.dumps({"id": "7", "inputs": [tensor]}).encode(),
        content_type=JSON,
    )

    assert answer.json == {
        "id": "7",
        "model_name": "m",
        "model_version": None,
        "outputs": [{"name": "x", "datatype": "INT64", "data": [42], "shape": [1]}],
    }
    assert server.ask("inference", "GET", "/v2/health/ready").json == {"ready": True}
    assert server.ask("management", "GET", "/v1/models/m").json == {"name": "m", "ready": True}
    versions = server.ask("inference", "POST", "/v2/models/m/versions/1.0/infer", b"{}")
    assert versions.status == 501


# -- SageMaker -------------------------------------------------------------------------


def test_sagemakers_container_on_one_port(start_server, model_store, tmp_path):
    """
    Its configuration file, driven by its environment; both interfaces on one port (1.1, 9.3).
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "sagemaker.properties"
    config.write_text(
        "model_store=$$SAGEMAKER_MODEL_STORE$$\n"
        "inference_address=http://127.0.0.1:$$SAGEMAKER_BIND_TO_PORT$$\n"
        "management_address=http://127.0.0.1:$$SAGEMAKER_BIND_TO_PORT$$\n"
        "metrics_address=http://127.0.0.1:0\n"
        "default_workers_per_model=$$SAGEMAKER_NUM_MODEL_WORKERS$$\n"
        "default_service_handler=$$SAGEMAKER_HANDLER$$\n"
        "decode_input_request=false\n"
        "load_models=noop.mar\n"
        "sagemaker=single\n"
    )
    server = start_server(
        "--config",
        str(config),
        SAGEMAKER_MODEL_STORE=str(model_store),
        SAGEMAKER_BIND_TO_PORT=str(port),
        SAGEMAKER_NUM_MODEL_WORKERS="1",
        SAGEMAKER_HANDLER="noop:handle",
    )

    invoked = server.ask("inference", "POST", "/invocations", b"x")
    listed = server.ask("inference", "GET", "/models")
    added = server.ask(
        "inference",
        "POST",
        "/models",
        b'{"model_name": "second", "url": "demo.mar", "synchronous": true}',
        content_type=JSON,
    )
    named = server.ask("inference", "POST", "/models/second/invoke", b"x")
    described = server.ask("inference", "GET", "/models/second/1.0")
    health = server.ask("inference", "GET", "/ping")

    assert urlsplit(server.addresses["management"]).port == port
    assert invoked.body == b"OK"
    assert [model["modelName"] for model in listed.json["models"]] == ["noop"]
    assert added.status == 200
    assert named.body == b"OK"
    assert described.json[0]["modelVersion"] == "1.0"
    assert (health.status, health.json) == (200, {"Status": "Healthy"})
    assert server.ask("inference", "GET", "/execution-parameters").json == {
        "MaxConcurrentTransforms": 1,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": 6,
    }
