"""What a handler can ask of its context, also in users' own unit tests (contract 7.3)."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from stoker.errors import ProtocolError
from stoker.wire import packing, payloads
from stoker.worker.context import Context, RequestProcessor
from stoker.worker.request import Headers, Request


@pytest.fixture
def context():
    return Context("m", "/models/m", None, 2, None, "0.12.0")


def a_request(number: int, headers: list[tuple[str, str]]) -> Request:
    body = payloads.Parameter("body", "text/plain", b"hi")
    return Request(
        payloads.pack_request(f"id-{number}", payloads.header_block([], headers), [body])
    )


def test_users_can_build_a_context_in_their_own_tests():
    context = Context(
        "m",
        model_dir="/d",
        manifest={"model": {}},
        batch_size=1,
        gpu=0,
        mms_version="1.0",
        limit_max_image_pixels=False,
        metrics=None,
        model_yaml_config={"handler": {}},
    )

    assert context.system_properties == {
        "model_dir": "/d",
        "gpu_id": 0,
        "batch_size": 1,
        "server_name": "MMS",
        "server_version": "1.0",
        "limit_max_image_pixels": False,
    }
    assert context.model_yaml_config == {"handler": {}}


def test_before_the_first_request_there_is_nothing(context):
    assert context.request_ids is None
    assert context.request_processor is None
    assert context.get_request_id() is None
    assert context.get_request_header(0, "explain") is None
    assert context.cancelled is False
    assert context.deadline is None
    context.set_response_status(404)  # no request to say it of: nothing happens


def test_users_may_put_request_processors_of_their_own(context):
    context.request_processor = [RequestProcessor({"explain": "True"}), None]

    context.set_response_header(0, "X", "1")
    context.set_response_header(1, "X", "1")
    context.set_response_content_type(0, "text/plain")
    context.set_response_status(201, "Made", 0)
    context.set_response_status(201, "Made", 1)

    assert context.get_request_header(0, "explain") == "True"
    assert context.get_request_header(1, "explain") is None
    assert context.get_response_headers(0) == {"X": "1", "content-type": "text/plain"}
    assert context.get_response_content_type(0) == "text/plain"
    assert context.get_response_status(0) == (201, "Made")
    assert context.get_response_status(1) == (200, "")


def test_all_responses_can_get_one_status(context):
    context.begin_batch([a_request(i, []) for i in range(3)])

    context.set_all_response_status(503, "Later")

    assert [context.get_response_status(i) for i in range(3)] == [(503, "Later")] * 3


def test_a_batch_replaces_what_belongs_to_requests_only(context):
    context.cache = {"kept": True}
    context.begin_batch([a_request(1, [("a", "1")])])
    context.set_response_status(500)

    context.begin_batch([a_request(2, [("b", "2")]), a_request(3, [])])

    assert context.request_ids == {0: "id-2", 1: "id-3"}
    assert context.get_response_status(0)[0] == 200
    assert context.get_request_header(0, "a") is None
    assert context.cache == {"kept": True}


def test_nothing_is_built_for_a_batch_that_nobody_asks_about(context):
    """
    Most handlers look at the body alone; they must not pay for headers.
    """
    context.begin_batch([a_request(1, [("a", "1")])])

    assert context.touched_processors is None
    context.get_request_header(0, "a")
    assert context.touched_processors is not None


def test_sequence_headers_have_names_from_the_environment(monkeypatch):
    monkeypatch.setenv("TS_REQUEST_SEQUENCE_ID", "my_sequence")

    context = Context("m", "/d", None, 1, None, "0.12.0")
    context.begin_batch([a_request(1, [("my_sequence", "7")])])

    assert context.get_sequence_id(0) == "7"
    assert context.header_key_sequence_start == "ts_request_sequence_start"
    assert context.header_key_sequence_end == "ts_request_sequence_end"


def test_a_context_can_be_copied(context):
    """
    The peer copies it for every batch in its async mode; handlers do, too.
    """
    context.begin_batch([a_request(1, [("A", "1")])])

    assert copy.deepcopy(context).get_request_header(0, "a") == "1"


def test_headers_ignore_case_and_keep_spelling():
    headers = Headers([("Content-Type", "a"), ("x_y", "1"), ("X-Y", "2"), ("x-y", "3")])

    assert headers["content-type"] == "a"
    assert headers.get("CONTENT-TYPE") == "a"
    assert "Content-type" in headers
    assert headers["x_y"] == headers["X_Y"] == "1"
    assert headers["X-y"] == "3"  # of names that differ in case, the last one
    assert headers["X-Y"] == "2"  # unless one is spelled like that
    assert headers.get("missing") is None
    assert "missing" not in headers
    with pytest.raises(KeyError):
        headers["missing"]
    assert list(headers) == ["Content-Type", "x_y", "X-Y", "x-y"]


def test_headers_are_a_dict_to_everybody_else():
    headers = Headers([("Content-Type", "a")])

    assert json.dumps(headers) == '{"Content-Type": "a"}'
    assert dict(headers) == {"Content-Type": "a"}
    pickled = pickle.loads(pickle.dumps(headers))  # noqa: S301 - our own, a line ago
    for same in (copy.copy(headers), copy.deepcopy(headers), pickled):
        assert same["content-type"] == "a"
    del headers["Content-Type"]
    assert headers.get("content-type") is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        packing.pack([]),
        packing.pack("text"),
        packing.pack({"a": 1}),
        packing.pack(["id"]),
        packing.pack(["id", "x"]),
        packing.pack(["id", 3, "name"]),
        packing.pack(["id", 0, "body", "text/plain"]),
    ],
)
def test_bytes_that_are_no_request_are_refused(payload):
    with pytest.raises(ProtocolError):
        Request(payload)
