"""DJL Serving's clients on a live server: archives, lives and errors behind a DJL listener."""

from __future__ import annotations

import json

import pytest
from facts import wait_until

pytestmark = pytest.mark.slow

UPPER = """
from djl_python import Output

def handle(inputs):
    return None if inputs.is_empty() else Output().add(inputs.get_as_string().upper())
"""
CHAT = """
import json
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    asked = json.loads(inputs.get_as_string())
    output = Output().add_property("content-type", "text/event-stream")
    pieces = asked["messages"][-1]["content"].split()
    return output.add_stream_content(iter(pieces), lambda piece: f"data: {piece}\\n\\n")
"""
LORA = """
import os
import time
from djl_python import Output

known = {}

def handle(inputs):
    if inputs.is_empty():
        return None
    if inputs.get_as_string() == "slowly":
        time.sleep(0.05)
    scales = " ".join(f"{name}={scale}" for name, scale in known.items())
    return Output().add(f"{os.getpid()} {scales}")

def register_adapter(inputs):
    name = inputs.get_property("name")
    if name == "bad":
        raise ValueError("no such adapter")
    known[name] = inputs.get_as_string("scale") if inputs.contains_key("scale") else "1"
    return Output().add(f"Adapter {name} registered with {known[name]}")

def update_adapter(inputs):
    known[inputs.get_property("name")] = inputs.get_as_string("scale")

def unregister_adapter(inputs):
    del known[inputs.get_property("name")]
"""
WRONG = "def handle(inputs):\n    raise RuntimeError('no weights')\n"
REFUSES = (
    "from djl_python import Output\ndef handle(inputs):\n    return Output(507, 'too large')\n"
)
WAITS = """
import os
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    with open(os.path.join(os.environ["E2E_GATES"], inputs.get_as_string())) as gate:
        gate.read()
    return Output().add("done")
"""
DIES = """
import os
def handle(inputs):
    if not inputs.is_empty():
        os._exit(3)
"""


@pytest.fixture(scope="module")
def server_flags(tmp_path_factory, model_store):
    for name, source in {
        "upper": UPPER,
        "chat": CHAT,
        "wrong": WRONG,
        "refuses": REFUSES,
        "waits": WAITS,
        "dies": DIES,
    }.items():
        (model_store / name).mkdir(exist_ok=True)
        (model_store / name / "model.py").write_text(source)
    (model_store / "lora").mkdir(exist_ok=True)
    (model_store / "lora" / "model.py").write_text(LORA)
    (model_store / "lora" / "serving.properties").write_text(
        "engine=Python\noption.enable_lora=true\n"
    )
    (model_store / "traced").mkdir(exist_ok=True)
    (model_store / "traced" / "saved_model.pb").touch()
    (model_store / "fast").mkdir(exist_ok=True)
    (model_store / "fast" / "model.py").write_text(UPPER)
    (model_store / "fast" / "serving.properties").write_text(
        "engine=Python\nbatch_size=4\nmax_batch_delay=5\nmax_idle_time=9\njob_queue_size=7\n"
        "minWorkers=2\nmaxWorkers=2\n"
    )
    config = tmp_path_factory.mktemp("config") / "config.properties"
    apis = ("inference", "management", "metrics")
    listeners = [f"http://127.0.0.1:0 torchserve {api}" for api in apis]
    listeners.append("http://127.0.0.1:0 djl inference+management+metrics")
    config.write_text(f"listeners={','.join(listeners)}\n")
    return ("--config", str(config))


@pytest.fixture
def djl(server):
    def ask(method, path, body=None, **headers):
        return server.ask("djl/management", method, path, body, **headers)

    return ask


def wait_status(djl, model, status):
    def is_so():
        answer = djl("GET", f"/models/{model}")
        return answer.status == 200 and answer.json["status"] == status

    wait_until(is_so, f"{model} is {status}")


# -- archives --------------------------------------------------------------------------


def test_an_archives_own_numbers_hold_unless_the_request_says_others(djl):
    """
    4.1, 11: API value wins over file wins over global.
    """
    assert djl("POST", "/models?url=fast").status == 200
    assert djl("POST", "/models?url=fast&model_name=own&batch_size=2&min_worker=1").status == 200

    fast, own = djl("GET", "/models/fast").json, djl("GET", "/models/own").json
    names = ("batchSize", "maxBatchDelay", "maxIdleTime", "minWorkers", "maxWorkers")
    assert [fast[name] for name in names] == [4, 5, 9, 2, 2]
    assert [own[name] for name in names] == [2, 5, 9, 1, 1]


def test_an_archive_for_djl_works_behind_every_listener(server, djl):
    """
    The archive decides how its handler is called, not who asks.
    """
    assert server.manage("POST", "/models", url="upper", model_name="upper").status == 200
    djl("PUT", "/models/upper?min_worker=1&max_worker=1&synchronous=true")

    assert server.predict("upper", "abc").text == "ABC"
    assert djl("POST", "/predictions/upper", b"abc").text == "ABC"
    assert server.describe("upper")["engine"] == "Python"


def test_what_only_java_can_do_is_refused_at_once(djl):
    """
    10: an engine that is named, and one that is meant.
    """
    named = djl("POST", "/models?url=upper&engine=MXNet")
    meant = djl("POST", "/models?url=traced")

    for answer in (named, meant):
        assert (answer.status, answer.json["type"]) == (400, "ModelException")
        assert "engine=Python" in answer.json["message"]
    assert djl("GET", "/models").json == {"models": []}


def test_adapters_are_known_to_every_worker(server, djl):
    """
    5: registered by one worker, used by all, also by one that comes later.
    """
    assert djl("POST", "/models?url=lora&min_worker=2&max_worker=2").status == 200
    base = "/models/lora/adapters"

    registered = djl("POST", f"{base}?name=a1&src=/a1&scale=2")
    again = djl("POST", f"{base}?name=a1&src=/a1")
    listed = djl("GET", base).json
    djl("PUT", "/models/lora?min_worker=4&max_worker=4&synchronous=true")
    asked = [
        server.later(djl, "POST", "/predictions/lora?adapter=a1", b"slowly") for _ in range(24)
    ]
    said = {each.answer().text for each in asked}

    assert (registered.status, registered.said) == (200, "Adapter a1 registered with 2")
    assert (again.status, again.json["type"]) == (409, "IllegalArgumentException")
    assert listed == {"adapters": [{"name": "a1", "src": "/a1", "preload": True, "pin": False}]}
    assert len({text.split()[0] for text in said}) > 1
    assert {text.split()[1] for text in said} == {"a1=2"}
    assert djl("POST", f"{base}/a1/update?scale=3").said == "Adapter a1 updated"
    assert djl("GET", f"{base}/a1").json["src"] == "/a1"
    assert djl("DELETE", f"{base}/a1").said == "Adapter a1 unregistered"
    gone = djl("POST", "/predictions/lora?adapter=a1", b"x")
    assert (gone.status, gone.json["error"]) == (424, "The adapter a1 has not been registered")


def test_adapters_are_refused_where_they_cannot_be(djl):
    """
    5: a model that has not asked for them, a model or an adapter that is not there.
    """
    djl("POST", "/models?url=upper")
    djl("POST", "/models?url=lora")

    plain = djl("POST", "/models/upper/adapters?name=a&src=/a")
    nobody = djl("GET", "/models/none/adapters")
    absent = djl("GET", "/models/lora/adapters/a")
    nameless = djl("POST", "/models/lora/adapters?src=/a")
    remote = djl("POST", "/models/lora/adapters?name=a&src=s3://b/a")
    refused = djl("POST", "/models/lora/adapters?name=bad&src=/a")

    told = [(a.status, a.json["message"]) for a in (plain, nobody, absent, nameless, remote)]
    assert told == [
        (400, "LoRA is not enabled."),
        (404, "The model none was not found"),
        (404, "The adapter a was not found"),
        (400, "The parameter name is required"),
        (409, "URL adapters are not currently supported"),
    ]
    assert (refused.status, refused.json["error"]) == (424, "no such adapter")
    assert djl("GET", "/models/lora/adapters").json == {"adapters": []}


def test_adapters_go_with_their_model(djl):
    """
    A model of the same name begins without them.
    """
    djl("POST", "/models?url=lora")
    djl("POST", "/models/lora/adapters?name=a&src=/a")
    djl("DELETE", "/models/lora")
    djl("POST", "/models?url=lora")

    assert djl("GET", "/models/lora/adapters").json == {"adapters": []}


# -- registration ----------------------------------------------------------------------


def test_a_load_that_fails_leaves_nothing(server, djl):
    """
    4.1: "a sync failure also unregisters the model"; the cause is in the answer.
    """
    server.expect_error("load failed")
    wrong = djl("POST", "/models?url=wrong")
    refuses = djl("POST", "/models?url=refuses")

    assert (wrong.status, wrong.json["type"]) == (500, "EngineException")
    assert wrong.json["message"] == "Failed to initialize model: RuntimeError: no weights"
    assert (refuses.status, refuses.json["message"]) == (507, "OOM")
    assert djl("GET", "/models").json == {"models": []}


def test_an_asynchronous_load_that_fails_stays_and_says_so(server, djl):
    """
    4.1: "Async failure leaves the workflow registered with status FAILED".
    """
    server.expect_error("load failed")
    assert djl("POST", "/models?url=wrong&synchronous=false").status == 202

    wait_status(djl, "wrong", "FAILED")
    assert djl("GET", "/models").json["models"][0]["status"] == "FAILED"
    ping = djl("GET", "/ping")
    assert (ping.status, ping.json) == (500, {"wrong": {"status": "FAILED"}})
    answer = djl("POST", "/predictions/wrong", b"x")
    assert (answer.status, answer.json["message"]) == (503, "Model is not ready: wrong")
    assert djl("DELETE", "/models/wrong").status == 200


def test_an_asynchronous_registration_without_an_archive_is_accepted_first(server, djl):
    """
    4.1: the 202 comes before anything is fetched, so its failure shows in describe alone.
    """
    server.expect_error("model cannot be loaded")
    assert djl("POST", "/models?url=none.zip&synchronous=false").status == 202

    wait_status(djl, "none", "FAILED")
    described = djl("GET", "/models/none").json
    assert described["failure"]["message"] == "Model not found at: none.zip"
    assert djl("POST", "/models?url=none.zip").status == 404


def test_a_name_without_a_version_is_taken_once(djl):
    """
    4.1: "Second registration of a name without version fails if the endpoint has anything".
    """
    assert djl("POST", "/models?url=upper&model_version=v1").status == 200

    again = djl("POST", "/models?url=upper")
    same = djl("POST", "/models?url=upper&model_version=v1")

    assert (again.status, again.json["message"]) == (
        409,
        "Workflow upper is already registered.",
    )
    assert same.json["message"] == "Workflow upper:v1 is already registered."


# -- inference -------------------------------------------------------------------------


def test_a_chat_goes_to_the_model_that_is_named_and_streams(djl):
    """
    3.2, 14.
    """
    djl("POST", "/models?url=chat")
    body = json.dumps({"messages": [{"role": "user", "content": "a b c"}]}).encode()

    answer = djl("POST", "/v1/chat/completions?model_name=chat", body)

    assert answer.header("content-type") == "text/event-stream"
    assert answer.text == "data: a\n\ndata: b\n\ndata: c\n\n"


def test_a_result_is_fetched_later(djl):
    """
    3.6, through the whole server.
    """
    djl("POST", "/models?url=upper")
    sent = djl("POST", "/predictions/upper", b"abc", x_synchronous="false")
    token = sent.header("x-next-token")

    def fetch():
        return djl("GET", "/invocations", x_starting_token=token)

    wait_until(lambda: fetch().status == 200, "the result is there")
    assert fetch().text == "ABC"


def test_workers_that_nobody_wants_are_said_to_be_shut_down(djl):
    """
    4.3: `min=0,max=0`.
    """
    djl("POST", "/models?url=upper")
    djl("PUT", "/models/upper?min_worker=0&max_worker=0&synchronous=true")

    answer = djl("POST", "/predictions/upper", b"x")

    assert (answer.status, answer.json["type"]) == (503, "WlmException")
    assert answer.json["message"] == "All model workers has been shutdown: upper"


def test_a_full_queue_is_a_503_of_its_own(server, djl):
    """
    2: WlmCapacityException, and when to come again.
    """
    djl("POST", "/models?url=waits&job_queue_size=1")
    gate = server.gate("g")
    first = server.later(djl, "POST", "/predictions/waits", b"g")
    gate.wait_reached()
    others = [server.later(djl, "POST", "/predictions/waits", b"g") for _ in range(2)]

    answer = wait_until(
        lambda: next((each.answer() for each in others if each.is_answered), None), "one is refused"
    )

    assert (answer.status, answer.json["type"]) == (503, "WlmCapacityException")
    assert answer.json["message"] == "Worker queue capacity exceeded for model: waits"
    assert answer.header("retry-after")
    gate.stay_open()
    gate.let_go()
    assert first.answer().text == "done"
    assert {each.answer().status for each in others} == {200, 503}


def test_unregister_answers_what_is_queued(server, djl):
    """
    4.5 [fix]: 503 `Worker shutting down` for what is queued; what is in hand is finished.
    """
    djl("POST", "/models?url=waits")
    gate = server.gate("g")
    first = server.later(djl, "POST", "/predictions/waits", b"g")
    gate.wait_reached()
    second = server.later(djl, "POST", "/predictions/waits", b"g")
    wait_until(lambda: djl("GET", "/models/waits").json["queueLength"] == 1, "one is queued")
    removal = server.later(djl, "DELETE", "/models/waits")

    answer = second.answer()

    assert (answer.status, answer.json["message"]) == (503, "Worker shutting down")
    gate.let_go()
    assert first.answer().text == "done"
    assert removal.answer().status == 200


def test_a_worker_that_dies_is_a_503_and_has_a_successor(djl):
    """
    6.7 [fix]: not FAILED for ever after the first crash.
    """
    djl("POST", "/models?url=dies")

    answer = djl("POST", "/predictions/dies", b"x")

    assert (answer.status, answer.json["type"]) == (503, "WlmException")
    wait_until(
        lambda: [w["status"] for w in djl("GET", "/models/dies").json["workers"]] == ["READY"],
        "a worker is there again",
    )


def test_a_handler_made_for_torchserve_fails_as_djl_tells_it(server, djl):
    """
    22.3: 424 with the handler's words.
    """
    server.register("does", "does:handle")

    answer = djl(
        "POST",
        "/predictions/does",
        json.dumps({"do": "raise"}).encode(),
        content_type="application/json",
    )

    assert answer.status == 424
    assert answer.json["message"] == "invoke handler failure"


def test_a_registration_survives_the_supervisor(start_server, server_flags):
    """
    Also what only this dialect says of it: no version, its own numbers, what was tuned since.
    """
    server = start_server(*server_flags)

    def djl(method, path, body=None):
        return server.ask("djl/management", method, path, body)

    djl("POST", "/models?url=fast&max_idle_time=8")
    djl("PUT", "/models/fast?batch_size=3&min_worker=1&max_worker=1&synchronous=true")
    names = ("batchSize", "maxBatchDelay", "maxIdleTime", "minWorkers", "maxWorkers")
    server.supervisor.kill()

    wait_until(server.is_answering, "there is another supervisor")
    wait_status(djl, "fast", "Healthy")
    described = djl("GET", "/models/fast").json
    assert [described[name] for name in names] == [3, 5, 8, 1, 1]
    assert "version" not in described
    assert djl("POST", "/predictions/fast", b"abc").text == "ABC"
