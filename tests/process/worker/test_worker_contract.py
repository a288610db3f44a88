"""What handlers get, and what becomes of what they return (contract 2.4 to 2.7, 1.6)."""

from __future__ import annotations

import json

import pytest

from stoker.wire import frames as f
from stoker.wire import payloads

REPR = """
def handle(data, context):
    if data is None:
        return None
    return [f"{type(row['body']).__name__} {row['body']!r}" for row in data]
"""

#: Evaluates its own body: one worker answers for many cases.
EVAL = """
import json
from ts.service import PredictionException

class Cancel(BaseException):
    pass

def handle(data, context):
    if data is None:
        return None
    bodies = [bytes(row["body"]).decode() for row in data]
    if bodies[0].startswith("batch:"):
        return eval(bodies[0].removeprefix("batch:"))
    if bodies[0].startswith("raise:"):
        raise eval(bodies[0].removeprefix("raise:"))
    return [eval(body) for body in bodies]
"""


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("", b"\x01\x02", r"bytearray bytearray(b'\x01\x02')"),
        ("application/json", b'{"a": [1]}', "dict {'a': [1]}"),
        ("application/json", b'"x"', "str 'x'"),
        ("application/json", b"{not", "bytearray bytearray(b'{not')"),
        ("application/json", b"[" * 100_000, "bytearray bytearray(b'[["),
        ("Application/JSON", b"{}", "bytearray bytearray(b'{}')"),
        ("application/json; charset=utf-8", b"{}", "bytearray bytearray(b'{}')"),
        ("text/plain", "grüß".encode(), "str 'grüß'"),
        ("text/csv", b"\xff", r"bytearray bytearray(b'\xff')"),
        ("image/png", b"x", "bytearray bytearray(b'x')"),
    ],
)
def test_content_type_decides_what_a_handler_gets(
    serve, make_request, content_type, body, expected
):
    peer = serve(REPR)

    answer = peer.ask(make_request(body, content_type)).one()

    assert answer.body.decode().startswith(expected)


def test_nothing_is_decoded_when_the_operator_says_so(serve, make_request):
    peer = serve(REPR, decode_request=False)

    answer = peer.ask(make_request(b"{}", "application/json")).one()

    assert answer.body == b"bytearray bytearray(b'{}')"


def test_forms_keep_their_names_and_the_last_of_equal_names_wins(serve):
    peer = serve(
        """
        def handle(data, context):
            if data is None:
                return None
            return [[[name, str(value)] for name, value in data[0].items()]]
        """
    )
    parts = [("data", "", b"1"), ("note", "text/plain", b"hi"), ("data", "", b"2")]

    answer = peer.ask(payloads.pack_request("id", b"", [payloads.Parameter(*p) for p in parts]))

    assert json.loads(answer.one().body) == [["data", "bytearray(b'2')"], ["note", "hi"]]


@pytest.mark.parametrize(
    ("expression", "body"),
    [
        ("b'raw'", b"raw"),
        ("bytearray(b'raw')", b"raw"),
        ("'grüß'", "grüß".encode()),
        ("{'a': [1, 'ü']}", b'{\n  "a": [\n    1,\n    "\\u00fc"\n  ]\n}'),
        ("[]", b"[]"),
        ("1.5", b"1.5"),
        ("True", b"true"),
        ("None", b"null"),
        ("float('nan')", b"NaN"),
    ],
)
def test_results_become_bodies(serve, make_request, expression, body):
    peer = serve(EVAL)

    answer = peer.ask(make_request(expression.encode())).one()

    assert answer.body == body
    assert answer.content_type is None


def test_a_bad_element_fails_its_own_request_only(serve, make_request):
    """
    Users asked the peer for it (pytorch/serve#1316): neighbours of a bad item
    get their results.
    """
    peer = serve(EVAL, max_response_bytes=1000)
    expressions = [
        b"'fine'",
        b"object()",
        b"'x' * 1001",
        b"PredictionException('not today', 418)",
        b"ValueError('secret')",
        b"'\\ud800'",
        b"'also fine'",
    ]

    answered = peer.ask(
        *[make_request(text, request_id=f"id-{i}") for i, text in enumerate(expressions)]
    )

    assert answered.one(0).body == b"fine"
    assert answered.one(6).body == b"also fine"
    errors = [answered.one(i).error for i in range(1, 6)]
    assert [error.code for error in errors] == [
        "bad_handler_result",
        "response_too_large",
        "handler_refused",
        "handler_failed",
        "handler_failed",
    ]
    assert errors[0].message == "Unsupported model output data type."
    assert errors[1].details == {"limit_bytes": 1000}
    assert (errors[2].message, errors[2].details) == ("not today", {"status": 418})
    assert "secret" not in errors[3].message
    assert "id-4" in peer.output()[1]
    assert "ValueError: secret" in peer.output()[1]


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"raise:ValueError('secret')", "handler_failed", "Prediction failed"),
        (b"raise:MemoryError()", "handler_out_of_memory", "Out of resources"),
        (b"raise:RuntimeError('CUDA error: x')", "handler_out_of_memory", "Out of resources"),
        (b"raise:PredictionException('no', 404)", "handler_refused", "no"),
        (b"raise:PredictionException('no', 'x')", "handler_refused", "no"),
        (b"raise:Cancel()", "handler_failed", "Prediction failed"),
        (b"raise:KeyboardInterrupt()", "handler_failed", "Prediction failed"),
        (b"batch:{}", "bad_handler_result", "Invalid model predict output"),
        (b"batch:None", "bad_handler_result", "Invalid model predict output"),
        (b"batch:('a', 'b')", "bad_handler_result", "Invalid model predict output"),
        (b"batch:['a']", "bad_handler_result", "number of batch response mismatched"),
    ],
)
def test_a_broken_call_fails_the_batch_and_not_the_worker(serve, make_request, body, code, message):
    peer = serve(EVAL)

    answered = peer.ask(make_request(body, request_id="id-a"), make_request(request_id="id-b"))
    errors = [answered.one(i).error for i in (0, 1)]

    assert [(error.code, error.message) for error in errors] == [(code, message)] * 2
    assert "id-a,id-b" in peer.output()[1]
    assert peer.ask(make_request(b"'alive'")).one().body == b"alive"


#: A device with room for so many items, and words for some bodies.
SMALL_DEVICE = """
import sys

class OutOfMemoryError(RuntimeError):
    pass

OutOfMemoryError.__module__ = "torch"

def handle(data, context):
    if data is None:
        return None
    bodies = [bytes(row["body"]).decode() for row in data]
    print("handling", bodies, context.get_request_id(0), file=sys.stderr)
    if "huge" in bodies:
        raise RuntimeError("CUDA out of memory. Tried to allocate 1 TiB")
    if len(bodies) > 2:
        raise OutOfMemoryError("Tried to allocate")
    if "lost" in bodies:
        raise RuntimeError("CUDA error: device-side assert triggered")
    return bodies
"""


def test_a_batch_too_large_for_the_device_is_handled_in_halves(serve, make_request):
    """
    What does not fit alone fails alone, with a code of its own.
    """
    peer = serve(SMALL_DEVICE)
    bodies = [b"a", b"b", b"c", b"huge", b"e", b"f", b"g"]

    answered = peer.ask(*[make_request(x, request_id=f"id-{x.decode()}") for x in bodies])

    assert answered.error_code(3) == "device_out_of_memory"
    assert [answered.one(i).body for i in (0, 1, 2, 4, 5, 6)] == [
        b"a",
        b"b",
        b"c",
        b"e",
        b"f",
        b"g",
    ]
    assert "handling ['e', 'f'] id-e" not in peer.output()[1]
    assert "handling ['f', 'g'] id-f" in peer.output()[1]
    assert "no memory for a batch of 7" in peer.output()[1]
    assert answered.replies[-1].is_last


def test_a_handler_that_may_not_see_a_request_twice_gets_no_halves(serve, make_request):
    """
    Nobody knows how far it came before its device was full.
    """
    peer = serve(SMALL_DEVICE, is_idempotent=False)

    answered = peer.ask(*[make_request(b"x") for _ in range(4)])

    assert {answered.error_code(i) for i in range(4)} == {"device_out_of_memory"}
    assert peer.output()[1].count("handling") == 1


def test_a_worker_that_has_lost_its_device_ends(serve, make_request):
    """
    Every further call would fail; the next process gets the device anew.
    """
    peer = serve(SMALL_DEVICE)

    answered = peer.ask(make_request(b"lost"))

    assert answered.error_code() == "handler_out_of_memory", "the contract's, for whatever is CUDA"
    assert peer.wait_exit() == 1
    assert "lost its device" in peer.output()[1]


def test_refusals_carry_their_status(serve, make_request):
    peer = serve(EVAL)

    assert peer.ask(make_request(b"raise:PredictionException('x', 404)")).one().error.details == {
        "status": 404
    }
    assert peer.ask(make_request(b"raise:PredictionException('x')")).one().error.details == {
        "status": 500
    }


def test_the_traceback_shows_the_handler_and_not_the_worker(serve, make_request):
    peer = serve(EVAL)

    peer.ask(make_request(b"raise:ValueError('here')"))

    log = peer.output()[1]
    assert "handler.py" in log
    assert "contracts/torchserve.py" not in log


def test_status_headers_and_content_type_are_set_per_item(serve, make_request):
    peer = serve(
        """
        def handle(data, context):
            if data is None:
                return None
            context.set_response_content_type(0, "text/html")
            context.set_response_header(0, "X-Mine", "1")
            context.set_response_status(404, "Nope", 1)
            return ["a", "b", "c"]
        """
    )

    answered = peer.ask(make_request(), make_request(), make_request())

    assert answered.one(0)[2:6] == (200, "", "text/html", [("X-Mine", "1")])
    assert answered.one(1)[2:6] == (404, "Nope", None, [])
    assert answered.one(2)[2:6] == (200, "", None, [])
    assert peer.ask(make_request(), make_request(), make_request()).one(1).status == 404


def test_what_one_batch_sets_is_forgotten_in_the_next(serve, make_request):
    peer = serve(
        """
        def handle(data, context):
            if data is None:
                return None
            if data[0]["body"] == b"set":
                context.set_response_status(500)
            return [[context.get_request_id(), context.get_response_status(0)[0]]]
        """
    )

    first = peer.ask(make_request(b"set", request_id="one")).one()
    second = peer.ask(make_request(b"look", request_id="two")).one()

    assert (first.status, json.loads(first.body)) == (500, ["one", 500])
    assert (second.status, json.loads(second.body)) == (200, ["two", 200])


def test_headers_are_found_in_any_case(serve, make_request):
    """
    An ASGI server lower-cases names; handlers ask for "Content-Type" and for
    names with underscores (contract 2.5).
    """
    peer = serve(
        """
        def handle(data, context):
            if data is None:
                return None
            names = ["Content-Type", "content-type", "explain", "ts_request_sequence_id",
                     "ts-request-sequence-id", "body", "missing"]
            return [[[context.get_request_header(0, name) for name in names],
                     context.get_all_request_header(0)]]
        """
    )
    headers = [("content-type", "image/png"), ("explain", "False"), ("TS_request_sequence_id", "7")]

    found, everything = json.loads(
        peer.ask(make_request(b"", "image/png", headers=headers)).one().body
    )

    kind = {"content-type": "image/png"}
    assert found == ["image/png", "image/png", "False", "7", None, kind, None]
    assert everything == {"body": kind, **dict(headers)}


def test_the_context_keeps_what_handlers_put_on_it(serve, make_request):
    peer = serve(
        """
        def handle(data, context):
            if data is None:
                context.cache = {"calls": 0}
                return None
            context.cache["calls"] += 1
            return [context.cache]
        """
    )

    peer.ask(make_request())

    assert json.loads(peer.ask(make_request()).one().body) == {"calls": 2}


def test_a_damaged_payload_fails_alone(serve, make_request):
    peer = serve(EVAL)

    answered = peer.ask(b"\xc1", make_request(b"'fine'"), b"\x90")

    assert answered.error_code(0) == "protocol"
    assert answered.one(1).body == b"fine"
    assert answered.error_code(2) == "protocol"


STREAM = """
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    for step in range(3):
        pieces = [f"{i}.{step} " for i in range(len(data))]
        send_intermediate_predict_response(
            pieces, context.request_ids, "Intermediate Prediction success", 200, context
        )
        if data[0]["body"] == b"fail":
            raise ValueError("after the first piece")
    return [f"{i} end" for i in range(len(data))]
"""


def test_intermediate_results_leave_before_the_handler_returns(serve, make_request):
    peer = serve(STREAM)

    answered = peer.ask(make_request(), make_request())

    assert [reply.is_last for reply in answered.replies] == [False, False, False, True]
    assert [len(reply.ended) for reply in answered.replies] == [0, 0, 0, 2]
    first = answered.of(0)
    assert [answer.kind for answer in first] == [1, 1, 1, 0]
    assert [answer.body for answer in first] == [b"0.0 ", b"0.1 ", b"0.2 ", b"0 end"]
    assert first[0].headers == [("ts_stream_next", "true")]
    assert first[-1].headers == [("ts_stream_next", "false")]


def test_an_error_after_the_first_piece_ends_the_stream(serve, make_request):
    peer = serve(STREAM)

    answers = peer.ask(make_request(b"fail")).of(0)

    assert [answer.kind for answer in answers] == [1, 2]
    assert answers[-1].error.code == "handler_failed"
    assert len(peer.ask(make_request()).of(0)) == 4


def test_a_handler_may_be_a_generator_of_lists(serve, make_request):
    """
    Ours, not the peer's: each step is a list with one piece per request, and
    what the generator returns, if anything, holds the last pieces.
    """
    peer = serve(
        """
        def handle(data, context):
            if data is None:
                return
            yield ["a"] * len(data)
            yield ["b"] * len(data)
            return None if data[0]["body"] == b"" else ["end"] * len(data)
        """
    )

    without, with_end = peer.ask(make_request()), peer.ask(make_request(b"x"), make_request())

    assert [(a.kind, a.body) for a in without.of(0)] == [(1, b"a"), (1, b"b"), (0, b"")]
    assert [(a.kind, a.body) for a in with_end.of(1)] == [(1, b"a"), (1, b"b"), (0, b"end")]


def test_an_element_may_be_a_generator_of_pieces(serve, make_request):
    """
    Ours, not the peer's: answers of different length in one batch; the short
    one is complete while the long one goes on.
    """
    peer = serve(
        """
        def words(text):
            for word in text.split():
                if word == "fail":
                    raise ValueError(word)
                yield word

        def handle(data, context):
            if data is None:
                return None
            bodies = [bytes(row["body"]).decode() for row in data]
            return [body if body == "plain" else words(body) for body in bodies]
        """
    )

    answered = peer.ask(*[make_request(text) for text in (b"a", b"b c d", b"plain", b"e fail")])

    assert [(a.kind, a.body) for a in answered.of(0)] == [(1, b"a"), (0, b"")]
    assert [(a.kind, a.body) for a in answered.of(1)] == [(1, b"b"), (1, b"c"), (1, b"d"), (0, b"")]
    assert answered.one(2).body == b"plain"
    assert [a.kind for a in answered.of(3)] == [1, 2]
    order = [answer.job_id[-1] for answers in answered.by_reply for answer in answers]
    assert order.index(0, 1) < len(order) - 1 - order[::-1].index(1)
    assert len(answered.replies[-1].ended) == 4


def test_a_stream_stops_when_its_client_has_left(serve, make_request, make_job_id):
    """
    Nobody waits for the rest of an endless answer (pytorch/serve#2814).
    """
    peer = serve(
        """
        import itertools

        def handle(data, context):
            return None if data is None else [(str(i) for i in itertools.count())]
        """
    )
    peer.submit([make_request()])
    peer.next_reply()

    peer.send(f.Drop([make_job_id(0)]))

    assert peer.answered().replies[-1].ended == [make_job_id(0)]
    assert peer.process.poll() is None


def test_a_handler_can_see_that_its_clients_have_left(serve, make_request, make_job_id):
    peer = serve(
        """
        import sys
        def handle(data, context):
            if data is None:
                return None
            print("in hand", file=sys.stderr)
            while not context.cancelled:
                pass
            return ["seen"] * len(data)
        """
    )
    peer.submit([make_request(), make_request()])
    peer.wait_output("in hand")

    peer.send(f.Drop([make_job_id(0)]))
    peer.send(f.Drop([make_job_id(1)]))

    assert peer.answered().one(1).body == b"seen"
