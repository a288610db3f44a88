"""Every way to a prediction: contracts/torchserve.md 2.1, 2.3, 2.5, 2.8, 2.10."""

from __future__ import annotations

import threading

import pytest

from stoker.wire.frames import JobFlag
from stoker.wire.payloads import Parameter

FORM = (("Content-Type", "application/x-www-form-urlencoded"),)
NO_MODEL = {
    "code": 400,
    "type": "BadRequestException",
    "message": "Parameter model_name is required.",
}


@pytest.fixture
def sent(frontend, supervisor, echo):
    """Send a request to the model `echo`, and tell what its handler would get."""

    def send(target: str, body: bytes = b"b", headers=(), method: str = "POST"):
        answer = frontend.request("inference", method, target, body, headers)
        assert answer.status == 200, answer.body
        return supervisor.jobs[-1]

    return send


@pytest.mark.parametrize(
    ("target", "version", "added"),
    [
        ("/predictions/echo", None, {"explain": "False", "url_path": ""}),
        ("/predictions/echo/2.0", "2.0", {"explain": "False", "url_path": ""}),
        ("/predictions/echo/2.0/a/b", "2.0", {"explain": "False", "url_path": "a/b"}),
        ("/explanations/echo", None, {"explain": "True", "url_path": ""}),
        ("/explanations/echo/2.0", "2.0", {"explain": "True", "url_path": ""}),
        ("/explanations/echo/2.0/a/b", "2.0", {"explain": "True", "url_path": "a/b"}),
        ("/v1/models/echo:predict", None, {"explain": "False"}),
        ("/v1/models/echo:explain", None, {"explain": "True"}),
        ("/v2/models/echo/infer", None, {"explain": "False"}),
        ("/v2/models/echo/explain", None, {"explain": "True"}),
        ("/echo/predict", None, {}),
        ("/echo/2.0/predict", "2.0", {}),
        ("/models/echo/invoke", None, {}),
        ("/invocations?model_name=echo", None, {}),
    ],
)
@pytest.mark.parametrize("is_escaped", [False, True], ids=["plain", "escaped"])
def test_route_names_model_version_and_headers(sent, target, version, added, is_escaped):
    """
    Only what a route adds itself is there, and it is stronger than the client's (2.5).
    """
    if is_escaped:
        target = target.replace("echo", "ech%6f").replace("explain", "expl%61in")

    job = sent(target, headers=(("explain", "client"), ("url_path", "client")))

    assert (job.job.model, job.job.version) == ("echo", version)
    client = {"explain": "client", "url_path": "client"}
    found = {name: job.headers[name] for name in ("explain", "url_path")}
    assert found == client | added


@pytest.mark.parametrize(
    ("target", "flags"),
    [
        ("/predictions/echo", JobFlag.NONE),
        ("/v2/models/echo/infer", JobFlag.NONE),
        ("/explanations/echo", JobFlag.ALONE),
        ("/v1/models/echo:explain", JobFlag.ALONE),
        ("/v2/models/echo/explain", JobFlag.ALONE),
    ],
)
def test_explanation_is_never_batched_with_predictions(sent, target, flags):
    """
    Handlers look at the first request of a batch to learn what it is about.
    """
    assert sent(target).job.flags == flags


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "target",
    ["/explanations/echo", "/v1/models/echo:predict", "/v2/models/echo/infer", "/echo/predict"],
)
def test_method_of_a_prediction_is_not_checked(sent, method, target):
    """
    As in the peer (1.2).
    """
    job = sent(target, method=method)

    assert job.job.model == "echo"


@pytest.mark.parametrize(
    "target",
    [
        "/predictions/echo?x=1",
        "/explanations/echo?x=1",
        "/v1/models/echo:predict?x=1",
        "/v2/models/echo/infer?x=1",
    ],
)
def test_query_of_an_ordinary_route_is_ignored(sent, target):
    """
    Surprising, and the peer's (2.3).
    """
    job = sent(target)

    assert [parameter.name for parameter in job.payload.parameters] == ["body"]


@pytest.mark.parametrize(
    "target", ["/echo/predict", "/echo/2.0/predict", "/models/echo/invoke", "/invocations"]
)
def test_query_of_an_old_route_becomes_inputs(sent, supervisor, target):
    """
    Before those of the body, without a content type, `;` as good as `&` (2.3, 1.2).
    """
    supervisor.verbs["startup_models"] = lambda arguments: {"models": ["echo"]}

    job = sent(f"{target}?a=1+2&b=%C3%A9;a=3", b"c=4", FORM)

    assert job.payload.parameters == [
        Parameter("a", "", b"1 2"),
        Parameter("b", "", "é".encode()),
        Parameter("a", "", b"3"),
        Parameter("c", "", b"4"),
    ]


def test_query_beyond_all_reason_is_a_400(frontend):
    """
    Every input from outside has a limit.
    """
    query = "&".join("a" for _ in range(300))

    answer = frontend.request("inference", "POST", f"/echo/predict?{query}")

    assert (answer.status, answer.json["type"]) == (400, "BadRequestException")


# -- /invocations ----------------------------------------------------------------------


def test_invocations_take_the_model_from_the_query_first(sent, supervisor):
    """
    It stays an input, too (2.3).
    """
    supervisor.verbs["startup_models"] = lambda arguments: {"models": ["other"]}

    job = sent("/invocations?model_name=echo", b"model_name=third", FORM)

    assert job.job.model == "echo"
    assert job.payload.parameters[0] == Parameter("model_name", "", b"echo")


def test_invocations_mean_the_only_model_of_the_start(frontend, supervisor, echo, start_frontend):
    """
    SageMaker's container serves one; the supervisor is asked once (2.3).
    """
    supervisor.verbs["startup_models"] = lambda arguments: {"models": ["echo"]}
    running = start_frontend()

    for _ in range(3):
        answer = running.request("inference", "POST", "/invocations", b"model_name=x", FORM)
        assert answer.status == 200

    assert [job.job.model for job in supervisor.jobs] == ["echo"] * 3
    assert [verb for verb, _ in supervisor.calls] == ["startup_models"]


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_invocations_take_the_model_from_a_form_at_last(start_frontend, supervisor, echo, names):
    """
    Where none or several were loaded at start (2.3).
    """
    supervisor.verbs["startup_models"] = lambda arguments: {"models": names}
    running = start_frontend()

    named = running.request("inference", "POST", "/invocations", b"x=1&model_name=echo", FORM)
    nameless = running.request("inference", "POST", "/invocations", b"model_name=echo")
    empty = running.request("inference", "POST", "/invocations?model_name=", b"model_name=", FORM)

    assert named.status == 200
    assert (nameless.status, nameless.json) == (400, NO_MODEL)
    assert (empty.status, empty.json) == (400, NO_MODEL)


@pytest.mark.parametrize(
    ("role", "request_line", "verb", "outcome"),
    [
        ("inference", "POST /invocations", "startup_models", {"models": ["open"]}),
        ("management", "GET /models/open?customized=true", "describe", {"versions": []}),
    ],
)
def test_client_that_leaves_before_its_job_is_sent_still_cancels_it(
    start_frontend, supervisor, until, role, request_line, verb, outcome
):
    """
    Somebody else is asked first, and that takes its time.
    """
    is_asked, may_answer = threading.Event(), threading.Event()

    def answer(arguments):
        is_asked.set()
        assert may_answer.wait(20)
        return outcome

    supervisor.verbs[verb] = answer
    supervisor.models["open"] = lambda job: []
    running = start_frontend()
    client = running.client(role)
    client.send(f"{request_line} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".encode())
    assert is_asked.wait(20)

    client.close()
    until(
        lambda: not any(site.connections for site in running.frontend.sites),
        "the frontend has noticed",
    )
    may_answer.set()

    until(lambda: supervisor.cancelled, "the job was taken back")
    assert supervisor.cancelled == [supervisor.jobs[0].job.job_id]


# -- what is no route ------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/predictions",
        "/explanations",
        "/predict",
        "/echo/predict/x",
        "/echo/2.0/other",
        "/v1/models/echo",
        "/v1/models/echo:other",
        "/v1/models/echo:predict/x",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/echo",
        "/v2/models/echo/ready",
        "/v2/models/echo/versions/1/infer",
        "/models/echo",
        "/models",
        "/execution-parameters",
        "/Predictions/echo",
    ],
)
def test_path_that_is_no_route_is_a_404(frontend, target):
    """
    What only a switch or another listener serves included (2.1, 2.8).
    """
    answer = frontend.request("inference", "POST", target)

    assert (answer.status, answer.json["type"]) == (404, "ResourceNotFoundException")


def test_path_is_decoded_before_it_is_split(frontend, supervisor, echo):
    """
    An escaped slash separates; a plus is a plus; two slashes hold an empty name (1.2).
    """
    supervisor.models["a+b"] = supervisor.models["echo"]

    split = frontend.request("inference", "POST", "/predictions/echo%2F2.0", b"b")
    plus = frontend.request("inference", "POST", "/predictions/a+b", b"b")
    nameless = frontend.request("inference", "POST", "/predictions//echo", b"b")

    assert (split.status, supervisor.jobs[0].job.version) == (200, "2.0")
    assert plus.status == 200
    assert (nameless.status, nameless.json["message"]) == (404, "Model not found: ")


# -- the Open Inference Protocol -------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_open_inference_protocol_says_what_it_is(start_frontend, supervisor, method):
    """
    The misspelt key is the peer's (2.8); its readiness is not, for ours is true.
    """
    supervisor.verbs["ready"] = lambda arguments: {"is_ready": True}
    running = start_frontend(ts_open_inference_protocol=True)

    found = {
        target: running.request("inference", method, target).json
        for target in ("/v2", "/v2/health/live", "/v2/health/ready")
    }

    assert found == {
        "/v2": {
            "name": "Torchserve",
            "version": "0.12.0",
            "extenstion": ["kserve", "kubeflow"],
        },
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
    }


@pytest.mark.parametrize(
    "target",
    [
        "/v2/models/echo/versions",
        "/v2/models/echo/versions/1",
        "/v2/models/echo/versions/1/infer",
    ],
)
def test_open_inference_protocol_has_no_versions(start_frontend, echo, target):
    """
    501 in a shape of its own (1.6, 2.8).
    """
    running = start_frontend(ts_open_inference_protocol=True)

    refused = running.request("inference", "POST", target)

    assert refused.status_line == "HTTP/1.1 501 Not Implemented"
    assert refused.json == {"error": "Model versioning is not yet supported."}


@pytest.mark.parametrize(("workers", "is_ready"), [([], False), ([{}], True)])
def test_kserve_asks_the_management_listener_whether_a_model_is_ready(
    manage, supervisor, workers, is_ready
):
    """
    Any worker counts, in whatever state (2.1).
    """
    outcome = {"versions": [{"workers": workers}]}

    answer = manage("GET", "/v1/models/m", "describe", outcome)

    assert (answer.status, answer.json) == (200, {"name": "m", "ready": is_ready})
    assert supervisor.calls == [("describe", {"model": "m", "version": None, "all": False})]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_kserve_readiness_checks_the_method(frontend, method):
    """
    As every management route (1.6).
    """
    answer = frontend.request("management", method, "/v1/models/m")

    assert (answer.status, answer.json["type"]) == (405, "MethodNotAllowedException")


# -- SageMaker -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has_ready_worker", "status", "body"),
    [(True, 200, b'{\n\t"Status": "Healthy"\n}\n'), (False, 503, b"Models are not loaded")],
)
def test_sagemaker_is_healthy_once_a_worker_runs(
    start_frontend, supervisor, has_ready_worker, status, body
):
    """
    The words of the peer's plugin (2.10).
    """
    running = start_frontend(sagemaker="single")
    supervisor.verbs["health"] = lambda arguments: {
        "is_healthy": True,
        "has_ready_worker": has_ready_worker,
        "models": {},
    }

    answer = running.request("inference", "GET", "/ping")

    assert (answer.status, answer.body) == (status, body)


@pytest.mark.parametrize(
    ("handler", "status"),
    [
        ("", 200),
        ("module:handle", 200),
        ("{folder}/there.py:handle", 200),
        ("{folder}/there", 200),
        ("{folder}/missing.py:handle", 503),
    ],
)
def test_sagemaker_with_many_models_is_healthy_before_the_first(
    start_frontend, tmp_path, handler, status
):
    """
    What all of them are served by must be there, though (2.10).
    """
    (tmp_path / "there.py").touch()
    handler = handler.format(folder=tmp_path)
    running = start_frontend(sagemaker="multi", default_service_handler=handler)

    answer = running.request("inference", "GET", "/ping")

    assert answer.status == status
    if status == 200:
        assert answer.body == b'{\n\t"Status": "Healthy"\n}\n'


def test_sagemaker_learns_how_to_call(start_frontend):
    """
    GET alone (2.10).
    """
    running = start_frontend(
        sagemaker="single", default_workers_per_model=3, max_request_size=6 * 1024 * 1024
    )

    answer = running.request("inference", "GET", "/execution-parameters")
    other = running.request("inference", "POST", "/execution-parameters")

    assert answer.json == {
        "MaxConcurrentTransforms": 3,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": 6,
    }
    assert other.status == 405


def test_one_port_serves_invocations_and_management(start_frontend, supervisor, short_folder, echo):
    """
    SageMaker's way: `/models/{m}/invoke` beside `/models/{m}/{v}` (1.2, where the peer errs).
    """
    shared = f"unix:{short_folder}/sagemaker.sock"
    running = start_frontend(
        inference_address=shared, management_address=shared, sagemaker="single"
    )
    supervisor.verbs["describe"] = lambda arguments: {"versions": []}
    supervisor.verbs["list"] = lambda arguments: {"total": 0, "models": []}

    answers = {
        (method, target): running.request("inference", method, target, b"b")
        for method, target in (
            ("POST", "/models/echo/invoke"),
            ("POST", "/invocations?model_name=echo"),
            ("GET", "/models/echo/1.0"),
            ("GET", "/models/echo"),
            ("GET", "/models"),
        )
    }

    assert {answer.status for answer in answers.values()} == {200}
    assert answers["POST", "/models/echo/invoke"].body == b"b"
    assert [verb for verb, _ in supervisor.calls] == ["describe", "describe", "list"]
