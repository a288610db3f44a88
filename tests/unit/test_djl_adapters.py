"""What workers know of adapters, and how they tell each other: contracts/djl-serving.md 5."""

from __future__ import annotations

import json

import pytest

from stoker.worker.djl.adapters import Adapters
from stoker.worker.djl.outputs import Output


class Handler:
    """The three functions, and what they were called with."""

    def __init__(self):
        self.calls = []
        self.says = None

    def functions(self):
        def one(verb):
            def function(inputs):
                self.calls.append((verb, inputs.get_property("name")))
                return self.says

            return function

        return {verb: one(verb) for verb in ("register", "update", "unregister")}


@pytest.fixture
def worker(tmp_path):
    def made():
        handler = Handler()
        adapters = Adapters(handler.functions(), {"model_dir": "/m"}, tmp_path / "a" / "file")
        adapters.handler = handler
        return adapters

    return made


def said(output):
    return json.loads(output.content.value_at(0))


def test_what_one_worker_is_told_the_others_do_before_their_next_batch(worker):
    """
    In the same order, once.
    """
    one, other = worker(), worker()
    one.answer("register", {"name": "a", "src": "/a", "k": "v"}, {})
    one.answer("update", {"name": "a", "k": "w"}, {})
    one.answer("register", {"name": "b", "src": "/b"}, {})
    one.answer("unregister", {"name": "b"}, {})

    for _ in range(2):
        one.catch_up()
        other.catch_up()

    expected = [("register", "a"), ("update", "a"), ("register", "b"), ("unregister", "b")]
    assert one.handler.calls == other.handler.calls == expected
    assert "a" in other
    assert "b" not in other


def test_a_worker_is_up_to_date_before_it_changes_anything(worker):
    """
    Of two that are asked for the same name, one is refused.
    """
    one, other = worker(), worker()
    one.answer("register", {"name": "a", "src": "/a"}, {})

    output = other.answer("register", {"name": "a", "src": "/a"}, {})

    assert (output.code, said(output)["type"]) == (409, "IllegalArgumentException")


def test_what_a_handler_refuses_nobody_hears_of(worker):
    """
    Its own code and words are the answer.
    """
    one, other = worker(), worker()
    one.handler.says = Output().error("no room", code=507)

    output = one.answer("register", {"name": "a", "src": "/a"}, {})

    assert (output.code, said(output)["error"]) == (507, "no room")
    other.catch_up()
    assert other.handler.calls == []


def test_adapters_beside_the_model_are_there_from_the_start(worker, tmp_path):
    """
    `adapters/<name>/` folders; every worker registers them itself.
    """
    (tmp_path / "model" / "adapters" / "x").mkdir(parents=True)
    one = worker()

    one.load(str(tmp_path / "model"))

    assert one.handler.calls == [("register", "x")]
    assert said(one.answer("list", {}, {}))["adapters"][0]["name"] == "x"


def test_a_list_has_pages(worker):
    """
    `limit`, `next_page_token`.
    """
    one = worker()
    for name in "cab":
        one.answer("register", {"name": name, "src": "/x"}, {})

    first = said(one.answer("list", {"limit": "2"}, {}))
    second = said(one.answer("list", {"limit": "2", "next_page_token": "2"}, {}))

    assert [each["name"] for each in first["adapters"]] == ["a", "b"]
    assert (first["nextPageToken"], [each["name"] for each in second["adapters"]]) == ("2", ["c"])
    assert "nextPageToken" not in second


def test_an_alias_is_what_errors_say(worker):
    """
    `X-Amzn-SageMaker-Adapter-Alias`.
    """
    output = worker().answer(
        "unregister", {"name": "a"}, {"X-Amzn-SageMaker-Adapter-Alias": "mine"}
    )

    assert said(output)["message"] == "The adapter mine was not found"


def test_a_folder_of_somebody_elses_is_not_used(worker, tmp_path):
    """
    Whoever could write there could make handlers load what they like.
    """
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(PermissionError):
        worker().answer("register", {"name": "a", "src": "/a"}, {})
