"""Functions of DJL workflows, as a worker calls them: contracts/djl-serving.md 8.2."""

from __future__ import annotations

import json

import pytest

from stoker.wire.arena_layout import Descriptor
from stoker.wire.frames import AnswerKind
from stoker.wire.node_calls import (
    NodePart,
    PartKind,
    WorkflowRequest,
    pack_node_request,
    split_request,
)
from stoker.wire.payloads import Answer, Parameter, pack_answers, pack_request
from stoker.worker.djl.builtin import ensemble, identity
from stoker.worker.djl.functions import arguments_of, as_output
from stoker.worker.djl.inputs import Input
from stoker.worker.djl.outputs import Output
from stoker.worker.request import Request


def item(body, kind=None):
    made = Input()
    made.content.add("data", body if isinstance(body, bytes) else json.dumps(body).encode())
    if kind:
        made.properties["content-type"] = kind
    return made


def rated(name, probability):
    return {"className": name, "probability": probability}


def body_of(output):
    return b"".join(output.content.get_values())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 3], 2.0),
        ([[1, 2], [3, 4]], [2.0, 3.0]),
        ([{"cat": 0.5, "dog": 0.5}, {"cat": 1.0, "dog": 0.0}], {"cat": 0.75, "dog": 0.25}),
        (
            [
                [
                    {"className": "cat", "probability": 0.8},
                    {"className": "dog", "probability": 0.2},
                ],
                [{"className": "dog", "probability": 1.0}],
            ],
            [rated("dog", 0.6), rated("cat", 0.4)],
        ),
    ],
)
def test_ensemble_is_the_mean_of_what_is_alike(given, expected):
    """
    Of numbers, lists, and class probabilities.
    """
    assert json.loads(body_of(ensemble([item(each) for each in given]))) == expected


@pytest.mark.parametrize("given", [[], [[1], [1, 2]], [{"a": 1}, {"b": 1}], ["x", "y"], [True, 1]])
def test_what_is_not_alike_cannot_be_merged(given):
    """
    Better no answer than a wrong one.
    """
    with pytest.raises(ValueError):
        ensemble([item(each) for each in given])


def test_ensemble_of_tensors_is_their_mean():
    """
    `tensor/ndlist` in, `tensor/ndlist` out.
    """
    numpy = pytest.importorskip("numpy")

    def tensors(*values):
        packed = body_of(Output().add_as_numpy([numpy.array(values, dtype="float32")]))
        return item(packed, "tensor/ndlist")

    merged = ensemble([tensors(1, 3), tensors(3, 5)])

    (mean,) = item(body_of(merged)).get_as_numpy()
    assert mean.tolist() == [2.0, 4.0]
    assert merged.get_property("content-type") == "tensor/ndlist"


def test_identity_gives_what_it_got():
    """
    With its type.
    """
    output = identity(item(b"x", "text/plain"))

    assert (body_of(output), output.get_property("content-type")) == (b"x", "text/plain")


def test_arguments_are_inputs_and_lists_of_inputs():
    """
    Each with its own content type, and the client's properties but for that.
    """
    called = Input()
    called.properties["content-type"] = "image/png"
    called.properties["x-own"] = "1"
    called.properties["0[1]:body.content-type"] = "application/json"
    for name, value in (("0[0]:body", b"a"), ("0[1]:body", b"b"), ("1:part", b"c")):
        called.content.add(name, value)

    items, original = arguments_of(called)

    assert [each.get_as_bytes() for each in items] == [b"a", b"b"]
    assert [each.get_property("content-type") for each in items] == [None, "application/json"]
    assert original.get_as_bytes("part") == b"c"
    assert original.get_property("x-own") == "1"


@pytest.mark.parametrize(
    ("result", "body", "kind"),
    [
        (b"x", b"x", None),
        ("x", b"x", None),
        (item(b"x", "text/a"), b"x", "text/a"),
        (Output().add("x"), b"x", None),
        ([1], b"[\n  1\n]", "application/json"),
    ],
)
def test_a_function_may_return_what_comes_naturally(result, body, kind):
    """
    An Output is not asked for where a value will do.
    """
    output = as_output(result)

    assert (body_of(output), output.get_property("content-type")) == (body, kind)


# -- node payloads ----------------------------------------------------------------------


def frame(body, kind=None, answer=AnswerKind.FINAL):
    return pack_answers([Answer(b"\0" * 16, answer, 200, "", kind, [], body)])


def payload(*parts, block=b"Content-Type\nimage/png\nX-Own\n1"):
    packed = pack_request("r", block, [Parameter("body", "image/png", b"in")])
    return pack_node_request(
        b"frontend", split_request(packed), [NodePart(*part) for part in parts]
    )


def test_a_node_sees_the_clients_input_and_other_nodes_answers():
    """
    As if they were parameters of one request.
    """
    request = Request(
        payload(
            ("", PartKind.INPUT, split().parameters),
            ("one", PartKind.ANSWER, frame(b"1", "text/x")),
            ("two", PartKind.TYPED_ANSWER, [frame(b"2", "text/y"), frame(b"3")]),
            ("said", PartKind.TEXT, "word"),
        )
    )

    assert request.parameters() == [
        ("body", "image/png", b"in"),
        ("one", "", b"1"),
        ("two", "text/y", b"23"),
        ("said", "", b"word"),
    ]
    assert (request.request_id, request.headers["x-own"]) == ("r", "1")


def split():
    return split_request(pack_request("r", b"", [Parameter("body", "image/png", b"in")]))


def test_a_whole_body_that_is_an_answer_has_the_answers_type():
    """
    The client's content type was that of something else.
    """
    typed = Request(payload(("body", PartKind.TYPED_ANSWER, frame(b"{}", "application/json"))))
    untyped = Request(payload(("body", PartKind.TYPED_ANSWER, frame(b"{}"))))

    assert typed.headers["content-type"] == "application/json"
    assert "content-type" not in untyped.headers


def test_a_large_input_is_fetched_from_the_clients_frontend():
    """
    Four integers go round; the arena is that of the frontend that has the request.
    """
    where = Descriptor(1, 2, 3, 4)
    asked = []

    class Arena:
        def read(self, owner, descriptor):
            asked.append((owner, descriptor))
            return bytearray(b"large")

    packed = pack_request("r", b"", [Parameter("body", "", where)])
    request = WorkflowRequest(*split_request(packed))
    node = pack_node_request(b"frontend", request, [NodePart("", 2, request.parameters)])

    seen = Request(node, b"\0" * 16, Arena())

    assert seen.parameters() == [("body", "", bytearray(b"large"))]
    assert asked == [(b"frontend", where)]
