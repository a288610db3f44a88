"""Envelopes between clients' formats and handlers' rows: contracts/torchserve.md 7.6."""

from __future__ import annotations

import base64
import json

import pytest

from stoker.errors import BadHandlerResult
from stoker.handlers.envelopes import BodyEnvelope, JSONEnvelope, KServeEnvelope
from stoker.handlers.kserve_v2 import KServev2Envelope
from stoker.handlers.prediction import PredictionException


class FakeContext:
    """What envelopes look at."""

    model_name = "registered"

    def __init__(self, manifest=None, **headers):
        self.manifest = manifest
        self._headers = headers

    def get_request_header(self, idx, key):
        return self._headers.get(key)

    def get_request_id(self, idx=0):
        return f"id-{idx}"


@pytest.fixture
def seen():
    return []


@pytest.fixture
def wrapped(seen):
    """An envelope around a handler that remembers its rows and says what is wanted."""

    def wrap(kind, results=None):
        def handler(rows, context):
            seen.append(rows)
            return rows if results is None else results

        return kind(handler)

    return wrap


def body(document):
    return {"body": document}


def test_bodies_come_without_their_dicts(wrapped, seen):
    """
    `data` first, as in every handler of the peer's.
    """
    results = wrapped(BodyEnvelope).handle([{"data": b"1"}, {"body": "2"}], FakeContext())

    assert seen == [[b"1", "2"]]
    assert results == [b"1", "2"]


@pytest.mark.parametrize("is_decoded", [True, False])
def test_instances_of_all_requests_are_one_batch(wrapped, seen, is_decoded):
    """
    Whether the body was decoded before or not.
    """
    documents = [{"instances": [1, 2]}, {"instances": []}, {"instances": ["three"]}]
    data = [
        body(each if is_decoded else bytearray(json.dumps(each).encode())) for each in documents
    ]

    results = wrapped(JSONEnvelope).handle(data, FakeContext())

    assert seen == [[1, 2, "three"]]
    assert results == [
        '{"predictions": [1, 2]}',
        '{"predictions": []}',
        '{"predictions": ["three"]}',
    ]


def test_base64_in_an_instance_becomes_bytes(wrapped, seen):
    """
    Wherever it stands; a dict with other keys is left alone.
    """
    text = base64.b64encode(b"\x00\xff").decode()
    instances = [{"b64": text}, {"data": {"b64": text}}, [{"b64": text}], {"b64": 1, "x": 2}]

    wrapped(JSONEnvelope, [0] * 4).handle([body({"instances": instances})], FakeContext())

    assert seen == [[b"\x00\xff", {"data": b"\x00\xff"}, [b"\x00\xff"], {"b64": 1, "x": 2}]]


@pytest.mark.parametrize(
    ("explain", "field"),
    [("False", "predictions"), ("True", "explanations"), (None, "predictions")],
)
def test_kserve_1_answers_objects(wrapped, explain, field):
    """
    The field's name follows the route.
    """
    envelope = wrapped(KServeEnvelope)

    results = envelope.handle([body({"instances": [1]})], FakeContext(explain=explain))

    assert results == [{field: [1]}]


@pytest.mark.parametrize(
    "document", [None, [], "text", {}, {"instances": 1}, b"{", {"inputs": []}, {"b64": "?"}]
)
@pytest.mark.parametrize("kind", [JSONEnvelope, KServeEnvelope])
def test_request_in_another_format_is_refused_alone(wrapped, seen, kind, document):
    """
    400 for who sent it; its neighbour is answered.
    """
    good = body({"instances": [1]})

    first, second = wrapped(kind).handle([body(document), good], FakeContext())

    assert isinstance(first, PredictionException)
    assert first.error_code == 400
    assert not isinstance(second, Exception)
    assert seen == [[1]]


def test_nothing_to_predict_asks_no_handler(wrapped, seen):
    """
    No handler expects an empty batch.
    """
    results = wrapped(KServeEnvelope).handle([body({"instances": []})], FakeContext())

    assert results == [{"predictions": []}]
    assert seen == []


def test_what_a_request_alone_gets_need_not_match_its_rows(wrapped):
    """
    The peer does not count, either.
    """
    envelope = wrapped(KServeEnvelope, ["only", "two"])

    results = envelope.handle([body({"instances": [1, 2, 3]})], FakeContext())

    assert results == [{"predictions": ["only", "two"]}]


def test_results_that_cannot_be_shared_out_fail_the_batch(wrapped):
    """
    Nobody may get another's answer.
    """
    envelope = wrapped(JSONEnvelope, [1])

    with pytest.raises(BadHandlerResult, match="mismatched"):
        envelope.handle([body({"instances": [1]})] * 2, FakeContext())


def test_refused_row_refuses_its_request_alone(wrapped):
    """
    An exception among the results is a result (stoker's extension).
    """
    refusal = PredictionException("no", 422)
    envelope = wrapped(KServeEnvelope, [1, refusal, 3])

    results = envelope.handle(
        [body({"instances": [1]}), body({"instances": [2]}), body({"instances": [3]})],
        FakeContext(),
    )

    assert results == [{"predictions": [1]}, refusal, {"predictions": [3]}]


@pytest.mark.parametrize("kind", [BodyEnvelope, JSONEnvelope, KServeEnvelope, KServev2Envelope])
@pytest.mark.parametrize(
    ("data", "headers"), [(None, {}), ([], {}), ([{}], {"describe": "True"})], ids=str
)
def test_nothing_to_read_is_passed_on(wrapped, seen, kind, data, headers):
    """
    The call at load, and a describe.
    """
    envelope = wrapped(kind, ["as it is"])

    assert envelope.handle(data, FakeContext(**headers)) == ["as it is"]
    assert seen == [data]


def test_stream_passes_as_it_is():
    """
    Pieces have no envelope.
    """
    envelope = KServeEnvelope(lambda rows, context: (piece for piece in (["a"], ["b"])))

    steps = envelope.handle([body({"instances": [1]})], FakeContext())

    assert list(steps) == [["a"], ["b"]]


# -- version 2 -------------------------------------------------------------------------


def tensor(name="x", shape=(2,), datatype="INT64", data=(1, 2)):
    return {"name": name, "shape": [*shape], "datatype": datatype, "data": [*data]}


def test_inputs_are_rows_in_their_shape(wrapped, seen):
    """
    Flat or nested data; text is its first element.
    """
    inputs = [
        tensor("flat", (2, 3), data=(1, 2, 3, 4, 5, 6)),
        tensor("nested", (2, 1), data=([1], [2])),
        tensor("text", (1,), "BYTES", ("hello",)),
    ]
    context = FakeContext()

    wrapped(KServev2Envelope, [0, 0, 0]).handle([body({"id": "7", "inputs": inputs})], context)

    assert [row["data"] for row in seen[0]] == [[[1, 2, 3], [4, 5, 6]], [[1], [2]], "hello"]
    assert context.input_names == ["flat", "nested", "text"]
    assert context.input_request_id == "7"


def test_results_are_outputs_under_their_inputs_names(wrapped):
    """
    Model and version as the manifest has them, the id as the client.
    """
    manifest = {"model": {"modelName": "bert", "modelVersion": "2.0"}}
    inputs = [tensor("a"), tensor("b"), tensor("c"), tensor("d"), tensor("e")]
    results = [True, [[1, 2], [3, 4]], [0.5, 1], "yes", {"label": 0.5}]

    (answer,) = wrapped(KServev2Envelope, results).handle(
        [body({"id": "7", "inputs": inputs})], FakeContext(manifest)
    )

    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "bert", "2.0")
    assert answer["outputs"] == [
        {"name": "a", "datatype": "BOOL", "data": [True], "shape": [1]},
        {"name": "b", "datatype": "INT64", "data": [1, 2, 3, 4], "shape": [2, 2]},
        {"name": "c", "datatype": "FP64", "data": [0.5, 1], "shape": [2]},
        {"name": "d", "datatype": "BYTES", "data": ["yes"], "shape": [1]},
        {"name": "e", "datatype": "BYTES", "data": [{"label": 0.5}], "shape": [1]},
    ]


def test_several_requests_get_their_own_outputs(wrapped):
    """
    Where the peer looks at the first of a batch only.
    """
    first, second = wrapped(KServev2Envelope, [1, 2, 3]).handle(
        [body({"inputs": [tensor("a")]}), body({"id": "9", "inputs": [tensor("b"), tensor("c")]})],
        FakeContext(),
    )

    assert (first["id"], second["id"]) == ("id-0", "9")
    assert first["model_name"] == "registered"
    assert [output["name"] for output in first["outputs"]] == ["a"]
    assert [output["name"] for output in second["outputs"]] == ["b", "c"]


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        ["no object"],
        [{"shape": [1], "data": [1]}],
        [{"name": "x", "shape": [1]}],
        [tensor(shape=(3,))],
        [tensor(shape=(-1, -2))],
        [tensor(shape=("2",))],
        [tensor(shape=(True, 2))],
        [tensor(shape=(1,) * 40, data=(1,))],
        [tensor(datatype="BYTES", data=())],
    ],
)
def test_tensor_that_is_none_is_a_400(wrapped, seen, inputs):
    """
    Never a number out of range inside somebody's handler.
    """
    (refusal,) = wrapped(KServev2Envelope).handle([body({"inputs": inputs})], FakeContext())

    assert isinstance(refusal, PredictionException)
    assert refusal.error_code == 400
    assert seen == []


@pytest.mark.torch
def test_tensors_of_torch_are_outputs(wrapped):
    """
    Handlers return what their models do.
    """
    torch = pytest.importorskip("torch")
    envelope = wrapped(KServev2Envelope, [torch.tensor([[1.0, 2.0]])])

    (answer,) = envelope.handle([body({"inputs": [tensor()]})], FakeContext())

    (output,) = answer["outputs"]
    assert output == {"name": "x", "datatype": "FP64", "data": [1.0, 2.0], "shape": [1, 2]}
