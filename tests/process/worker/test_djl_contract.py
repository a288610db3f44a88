"""Handlers of DJL Serving in a real worker: contracts/djl-serving.md 13, 14."""

from __future__ import annotations

import json

import pytest

from stoker.wire.payloads import AnswerKind, Parameter, header_block, pack_request

#: Does what its body says, for each request of a batch.
DOES = """
import os
from djl_python import Input, Output

def handle(inputs):
    if inputs.is_empty():
        return None
    bodies = [item.get_as_string() for item in inputs.get_batches()]
    if bodies[0].startswith("all:"):
        return eval(bodies[0].removeprefix("all:"))
    output = Output()
    for i, body in enumerate(bodies):
        output.add(eval(body), batch_index=i if inputs.is_batch() else None)
    return output

def fail(text):
    raise RuntimeError(text)

def no_memory():
    raise MemoryError("much too large")

def failing(pieces):
    yield from pieces
    raise RuntimeError("midway")
"""


@pytest.fixture
def start(serve):
    def started(source=DOES, **spec):
        return serve(source, contract="djl", handler="handler.py:handle", **spec)

    return started


def test_the_first_call_has_all_options_and_no_contents(start, make_request):
    """
    13.1.
    """
    peer = start(
        """
from djl_python import Output
seen = {}

def handle(inputs):
    if inputs.is_empty():
        seen.update(inputs.get_properties())
        seen["function"] = inputs.get_function_name()
        return None
    return Output().add_as_json(seen)
""",
        config={"model_id": "org/x", "dtype": "fp16"},
    )

    seen = json.loads(peer.ask(make_request(b"?")).one().body)

    assert (seen["model_id"], seen["dtype"], seen["device_id"]) == ("org/x", "fp16", "-1")
    assert (seen["tensor_parallel_degree"], seen["cluster_size"]) == ("1", "1")
    assert seen["function"] == "handle"


def test_requests_are_properties_and_contents(start):
    """
    3.3: a body is `data` unless it is a form; custom attributes are properties of their own.
    """
    peer = start(
        """
from djl_python import Output

def handle(inputs):
    if inputs.is_empty():
        return None
    content = inputs.get_content()
    return Output().add_as_json([
        content.get_keys(),
        [bytes(value).decode() for value in content.get_values()],
        {k.lower(): v for k, v in inputs.get_properties().items()},
    ])
"""
    )
    headers = [
        ("Content-Type", "text/plain"),
        ("X-Amzn-SageMaker-Custom-Attributes", "a=1;b=2"),
        ("model_dir", "/etc"),
    ]
    asked = pack_request(
        "id-7",
        header_block([], headers),
        [Parameter("topK", "", b"5"), Parameter("body", "text/plain", b"x")],
    )
    form = pack_request(
        "id-8",
        header_block([], [("content-type", "multipart/form-data; boundary=x")]),
        [Parameter("body", "", b"1"), Parameter("other", "", b"2")],
    )

    keys, values, properties = json.loads(peer.ask(asked).one().body)
    form_keys, _, _ = json.loads(peer.ask(form).one().body)

    assert (keys, values) == (["topK", "data"], ["5", "x"])
    assert (properties["requestid"], properties["a"], properties["b"]) == ("id-7", "1", "2")
    assert properties["model_dir"] != "/etc"
    assert form_keys == ["body", "other"]


def test_an_output_is_a_status_with_headers_and_a_body(start, make_request):
    """
    3.4: properties are headers, the reason of a 200 is the usual one.
    """
    peer = start()
    headed = b'.add_property("X-A", 1).add_property("Content-Type", "a/b")'
    said = b'all:Output(201, "Made")%b.add("x")' % headed

    made = peer.ask(make_request(said)).one()
    plain = peer.ask(make_request(b"{'a': 1}")).one()

    assert (made.status, made.reason, made.content_type) == (201, "Made", "a/b")
    assert (made.headers, made.body) == ([("X-A", "1")], b"x")
    assert (plain.status, plain.reason, plain.content_type) == (200, "", None)
    assert plain.body == b'{\n  "a":1\n}'


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"fail('why')", 424, "why"),
        (b"no_memory()", 507, "much too large"),
        (b"all:'text'", 424, "Invalid output type: <class 'str'>"),
        (b"all:Output().error('mine', code=418)", 418, "mine"),
    ],
)
def test_what_goes_wrong_in_a_handler_is_an_answer(start, make_request, body, status, error):
    """
    13.4: 424, or 507 for want of memory, and a document that says what.
    """
    peer = start()

    answer = peer.ask(make_request(body)).one()

    assert (answer.kind, answer.status) == (AnswerKind.FINAL, status)
    assert answer.content_type == "application/json"
    assert json.loads(answer.body) == {
        "code": status,
        "message": "invoke handler failure",
        "error": error,
    }
    assert peer.ask(make_request(b"'alive'")).one().body == b"alive"


def test_none_is_no_content(start, make_request):
    """
    13.4.
    """
    answer = start().ask(make_request(b"all:None")).one()

    assert (answer.status, answer.reason, answer.body) == (204, "No content", b"")


def test_a_batch_is_answered_request_by_request(start, make_request):
    """
    13.5.
    """
    answered = start().ask(make_request(b"'a'"), make_request(b"'b'"), make_request(b"{'c': 3}"))

    assert [answered.one(i).body for i in range(3)] == [b"a", b"b", b'{\n  "c":3\n}']


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"all:Output().add('x')", "Batch output size mismatch, expected: 2, actual: 1"),
        (b"all:Output().add('x').add('y', key='z')", "Unexpected batch output key: None"),
        (
            b"all:Output().add('x', batch_index=0).add('y', batch_index=2)",
            "Unexpected batch output key: batch_2",
        ),
    ],
)
def test_a_batch_that_is_answered_wrongly_fails(start, make_request, body, message):
    """
    13.5: nobody gets another one's answer.
    """
    answered = start().ask(make_request(body), make_request(b"''"))

    assert {answered.one(i).error.message for i in range(2)} == {message}
    assert answered.error_code(0) == "bad_handler_result"


def test_a_failure_is_the_answer_of_the_whole_batch(start, make_request):
    """
    13.5: one code and message for all.
    """
    answered = start().ask(make_request(b"all:fail('why')"), make_request(b"''"))

    assert [answered.one(i).status for i in range(2)] == [424, 424]


def test_pieces_of_a_stream_leave_one_by_one(start, make_request):
    """
    14.
    """
    peer = start()
    said = b"all:Output().add_property('X-A', 1).add_stream_content(iter(['a', 'b']))"

    *pieces, last = peer.ask(make_request(said)).of(0)

    assert [piece.kind for piece in pieces] == [AnswerKind.CHUNK, AnswerKind.CHUNK]
    assert [piece.body for piece in pieces] == [b'{"outputs": "a"}\n', b'{"outputs": "b"}\n']
    assert (pieces[0].headers, last.kind, last.body) == ([("X-A", "1")], AnswerKind.FINAL, b"")


def test_a_stream_that_fails_before_it_begins_has_a_status(start, make_request):
    """
    14; afterwards the text of the failure is the last that is said.
    """
    peer = start()

    early = peer.ask(make_request(b"all:Output().add_stream_content(failing([]))")).one()
    *_, late = peer.ask(make_request(b"all:Output().add_stream_content(failing(['a']))")).of(0)

    assert early.status == 424
    assert json.loads(late.body)["error"] == "midway"


def test_the_last_word_comes_after_the_answer(start, make_request, tmp_path):
    """
    13.4: `finalize` cleans up what the answer needed.
    """
    done = tmp_path / "done"
    peer = start()

    answered = peer.ask(
        make_request(f"all:Output().add('x').finalize(open, {str(done)!r}, 'w')".encode())
    )

    assert answered.one().body == b"x"
    assert done.exists()


def test_clients_cannot_choose_the_function(start, make_request):
    """
    3.3.
    """
    answered = start().ask(make_request(b"'x'", headers=[("handler", "fail")]))

    assert answered.one().error.message == "The handler can't be overridden in a request"
    assert answered.error_code() == "invalid_parameter"


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        (
            "from djl_python import Output\ndef handle(inputs):\n"
            "    return Output(500, 'no weights')\n",
            "load_failed",
            "Failed to initialize model: no weights",
        ),
        (
            "from djl_python import Output\ndef handle(inputs):\n"
            "    return Output(507, 'too large')\n",
            "load_out_of_memory",
            "System out of memory",
        ),
        ("other = 1\n", "load_failed", "handler.py has no function handle"),
    ],
)
def test_a_handler_may_say_that_it_cannot_load(spawn_worker, write_handler, source, code, said):
    """
    13.1, 13.6.
    """
    from stoker.wire.loading import LoadSpec

    folder = write_handler(source)

    failed = spawn_worker().load(
        LoadSpec("m", "1.0", "handler.py:handle", model_dir=folder, contract="djl")
    )

    assert (failed.code, failed.message) == (code, said)
