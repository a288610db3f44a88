"""Input and Output of DJL handlers: contracts/djl-serving.md 13."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime

import pytest

from stoker.worker.djl.inputs import Input, join
from stoker.worker.djl.outputs import Output, wrapped
from stoker.worker.djl.pair_list import PairList
from stoker.worker.djl.sessions import SessionManager
from stoker.worker.djl.tensors import read_ndlist, write_ndlist, write_npz


def request(body: bytes = b"", kind: str = "", **contents: bytes) -> Input:
    made = Input()
    if kind:
        made.properties["Content-Type"] = kind
    if body or not contents:
        made.content.add("data", body)
    for key, value in contents.items():
        made.content.add(key, value)
    return made


def test_properties_are_found_in_any_case_and_keep_their_spelling():
    """
    13.2: names are case-insensitive.
    """
    made = request(kind="text/plain")
    made.properties["content-TYPE"] = "application/json"

    assert made.get_property("CONTENT-type") == "application/json"
    assert list(made.get_properties()) == ["Content-Type"]
    assert made.get_property("absent") is None


def test_content_without_a_key_is_data_or_whatever_came_first():
    """
    13.2.
    """
    assert request(b"x").get_as_bytes() == b"x"
    assert request(first=b"1", data=b"2").get_as_bytes() == b"2"
    assert request(first=b"1", second=b"2").get_as_bytes() == b"1"
    assert request(first=b"1", second=b"2").get_as_string("second") == "2"
    with pytest.raises(KeyError, match="requested data for key:none is not found!"):
        request(first=b"1").get_as_bytes("none")


def test_bodies_from_shared_memory_are_bytes_for_handlers():
    """
    A large body is a bytearray of the worker's.
    """
    made = Input()
    made.content.add("data", bytearray(b"large"))

    assert type(made.get_as_bytes()) is bytes


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("application/jsonlines", b"[1]", [1]),
        ("text/plain; charset=utf-8", "ä".encode(), "ä"),
        ("application/octet-stream", b"\0", b"\0"),
        ("", b"raw", b"raw"),
        ("", b"", None),
    ],
)
def test_content_type_decides_what_data_is(kind, body, expected):
    """
    13.3.
    """
    assert request(body, kind).get_data() == expected


def test_rows_of_csv_are_dicts():
    """
    13.2.
    """
    assert request(b"a,b\n1,2\n").get_as_csv() == [{"a": "1", "b": "2"}]


def test_several_requests_are_one_input_and_come_apart_again():
    """
    13.5: `batch_NNN.` before every name, and the number of requests as a property.
    """
    first, second = request(b"1", "text/plain"), request(b"2", "application/json")
    second.content.add(None, b"3")

    joined = join([first, second])
    joined.properties["device_id"] = "-1"

    assert joined.get_property("batch_size") == "2"
    assert joined.content.get_keys() == ["batch_000.data", "batch_001.data", "batch_001.data"]
    assert joined.get_property("batch_001.content-type") == "application/json"
    apart = joined.get_batches()
    assert [item.get_data() for item in apart] == ["1", 2]
    assert {item.get_property("device_id") for item in apart} == {"-1"}


def test_a_single_request_is_no_batch():
    """
    13.5.
    """
    one = request(b"1")

    assert join([one]) is one
    assert not one.is_batch()
    assert one.get_batch_size() == 1
    assert one.get_batches() == [one]


def test_arrays_survive_the_way_there_and_back():
    """
    13.7, for every type that has a name, and without any dimension.
    """
    numpy = pytest.importorskip("numpy")
    arrays = [
        numpy.arange(6, dtype=kind).reshape(2, 3)
        for kind in ("f4", "f8", "f2", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8")
    ]
    arrays += [numpy.array([True, False]), numpy.float32(1.5).reshape(())]
    arrays.append(numpy.zeros((0, 2), "f4"))

    back = read_ndlist(write_ndlist(arrays))

    for sent, got in zip(arrays, back, strict=True):
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        assert (got == sent).all()
    assert (read_ndlist(write_npz(arrays[:1]))[0] == arrays[0]).all()


def test_big_endian_arrays_of_java_clients_are_read():
    """
    13.7: the data says itself in which order its bytes are.
    """
    numpy = pytest.importorskip("numpy")

    def text(said: str) -> bytes:
        return struct.pack(">H", len(said)) + said.encode()

    data = numpy.array([1.0, 2.0], ">f4").tobytes()
    sent = b"".join(
        [
            struct.pack(">i", 1),
            text("NDAR"),
            struct.pack(">i", 3),
            b"\1",
            text("input"),
            text("default"),
            text("FLOAT32"),
            struct.pack(">iq", 1, 2),
            struct.pack(">i", 1) + "N".encode("utf-16-be"),
            b">",
            struct.pack(">i", len(data)) + data,
        ]
    )

    assert read_ndlist(sent)[0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_arrays_that_are_cut_off_are_refused(cut):
    """
    Whatever a client sends: a ValueError, no other end.
    """
    numpy = pytest.importorskip("numpy")
    whole = write_ndlist([numpy.ones(3, "f4")])

    with pytest.raises(ValueError):
        read_ndlist(whole[:cut])


def test_output_is_json_as_the_peer_writes_it():
    """
    13.4: letters as they are, two spaces, no blank behind a colon, no NaN.
    """
    numpy = pytest.importorskip("numpy")
    output = Output()
    output.add({"ä": [numpy.int64(1), numpy.ones(2)], "t": datetime(2024, 1, 2, tzinfo=UTC)})

    assert output.content.value_at(0).decode() == (
        '{\n  "ä":[\n    1,\n    [\n      1.0,\n      1.0\n    ]\n  ],\n'
        '  "t":"2024-01-02T00:00:00+00:00"\n}'
    )
    with pytest.raises(ValueError):
        output.add_as_json(float("nan"))


def test_an_error_replaces_what_was_there():
    """
    13.4.
    """
    output = Output().add("half done")

    output.error("why", code=400, message="bad")

    assert (output.code, output.get_property("Content-Type")) == (400, "application/json")
    assert [json.loads(value) for value in output.content.get_values()] == [
        {"code": 400, "message": "bad", "error": "why"}
    ]


def test_pieces_of_a_stream_are_wrapped_unless_told_otherwise():
    """
    14.
    """
    assert wrapped("hi") == b'{"outputs": "hi"}\n'
    assert Output().add_stream_content(iter(()), output_formatter=None).stream[1]("x") == b"x"


def test_binary_encoding_has_lengths_before_texts():
    """
    14.
    """
    encoded = Output.binary_encode({"data": "x", "last": True})

    assert encoded == b"\0\2\0\4data\0\1x\0\4last\0\4true"


def test_pairs_keep_order_and_repetition():
    """
    13.2.
    """
    pairs = PairList(pairs={"a": 1})
    pairs.add("a", 2)
    pairs.add(None, 3)

    assert (pairs.size(), pairs.get("a"), pairs.key_at(2), pairs.value_at(1)) == (3, 1, None, 2)
    assert list(pairs) == [("a", 1), ("a", 2), (None, 3)]


def test_sessions_are_found_by_every_worker_and_expire(tmp_path):
    """
    15: files, so that it does not matter which worker is asked.
    """
    options = {"sessions_path": str(tmp_path), "sessions_expiration": "60"}
    session = SessionManager(options).create_session()
    session.put("n", 1)
    session.put("raw", b"\0\1")

    found = SessionManager(options).get_session(session.session_id)

    assert (found.get("n"), found.get("raw"), found.get("none", 5)) == (1, b"\0\1", 5)
    with pytest.raises(ValueError, match="session not found"):
        SessionManager(options).get_session("../etc")
    with pytest.raises(ValueError):
        session.put("../x", 1)
    gone = SessionManager({**options, "sessions_expiration": "-1"})
    assert gone.get_session(session.session_id) is None
