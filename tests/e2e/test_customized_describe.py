"""A handler describes itself, through the whole chain: contracts/torchserve.md 3.6."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("object", {"labels": ["cat", "dog"], "shape": [3, 224, 224]}),
        ("text", {}),
        ("nothing", None),
    ],
)
def test_handler_says_what_it_is(server, model, shown):
    """
    An object becomes `customizedMetadata`, None is left out, anything else is empty.
    """
    server.register(model, "describes:handle")

    answer = server.manage("GET", f"/models/{model}", customized="true")

    assert answer.status == 200
    assert answer.json[0].get("customizedMetadata") == shown
    assert answer.header("X-Described-By") == model
    assert server.predict(model).body == b"predicted"


def test_question_is_never_in_a_batch_with_predictions(server, until):
    """
    The handler gets it alone, and the predictions around it together.
    """
    server.register("object", "describes:handle", batch_size=8, max_batch_delay=300)

    asked = [server.later(server.predict, "object") for _ in range(3)]
    described = server.later(server.manage, "GET", "/models/object", customized="true")

    assert described.answer().json[0]["customizedMetadata"]["labels"] == ["cat", "dog"]
    assert [each.answer().body for each in asked] == [b"predicted"] * 3


def test_handler_that_cannot_say_fails_the_describe(server):
    """
    As it would fail a prediction.
    """
    server.register("wrong", "describes:handle")

    answer = server.manage("GET", "/models/wrong", customized="true")

    assert (answer.status, answer.json["message"]) == (503, "Prediction failed")
    assert server.describe("wrong")["modelName"] == "wrong"


def test_model_without_workers_cannot_be_asked(server):
    """
    1.6: a text of its own.
    """
    server.manage("POST", "/models", url="noop.mar")

    answer = server.manage("GET", "/models/noop/1.0", customized="true")

    assert (answer.status, answer.json["type"]) == (503, "ServiceUnavailableException")
    assert answer.json["message"] == (
        'Model "noop" has no worker to serve describe request. '
        "Please use scale workers API to add workers."
    )


def test_handler_that_never_says_anything_is_given_up(server):
    """
    The peer polls for ever; here `response_timeout` ends it, in the peer's (misspelt) words.
    """
    server.gate("silent")
    server.register("silent", "describes:handle", response_timeout=1)

    answer = server.manage("GET", "/models/silent", customized="true")

    assert (answer.status, answer.json["type"]) == (500, "InternalServerException")
    assert answer.json["message"] == "Failed to get customized model matadata."


def test_built_in_base_class_asks_its_describe_handle(start_server, tmp_path):
    """
    `BaseHandler.describe_handle` (7.4).
    """
    (tmp_path / "titled.py").write_text(
        "from stoker.handlers import BaseHandler\n"
        "class Titled(BaseHandler):\n"
        "    def initialize(self, context):\n"
        "        self.context = context\n"
        "    def describe_handle(self):\n"
        "        return {'title': self.context.model_name}\n"
    )
    server = start_server(PYTHONPATH=str(tmp_path))
    server.register("m", "titled")

    answer = server.manage("GET", "/models/m", customized="true")

    assert answer.json[0]["customizedMetadata"] == {"title": "m"}
