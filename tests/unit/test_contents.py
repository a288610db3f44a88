"""What a request says, whoever asks: found in payloads and in shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.supervisor import contents as contents_module
from stoker.supervisor.contents import ContentReader
from stoker.wire.arena import Arena, Slot
from stoker.wire.arena_folder import arena_folder, remove_arenas
from stoker.wire.payloads import Parameter, header_block, pack_request

FRONTEND = b"\x01frontnd"
JOB = FRONTEND + b"12345678"
BODY = b"body" * (16 << 10)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = arena_folder(tmp_path)
    yield folder
    remove_arenas(folder)


@pytest.fixture
def reader(folder: Path) -> ContentReader:
    return ContentReader(folder)


@pytest.fixture
def slot(folder: Path) -> Iterator[Slot]:
    arena = Arena(folder, FRONTEND, 64 << 20)
    slot = arena.take(len(BODY))
    assert slot is not None
    slot.view[:] = BODY
    yield slot
    slot.free()
    arena.close()


def payload(body=BODY, request_id="a", name="body", kind="", headers=(), added=()):
    block = header_block([(n.encode(), v.encode()) for n, v in headers], added)
    return pack_request(request_id, block, [Parameter(name, kind, body)])


def test_the_same_words_of_another_client_are_the_same_content(reader):
    """
    Its id, its headers and its frontend differ; what the handler gets does not.
    """
    first = reader.read(JOB, payload(headers=[("traceparent", "1")]))
    second = reader.read(b"\x02another" + bytes(8), payload(request_id="b"))

    assert first == second
    assert first.size == reader.size(JOB, payload()) == len(BODY)


@pytest.mark.parametrize(
    "other",
    [
        payload(b"ydob" * (16 << 10)),
        payload(name="data"),
        payload(kind="text/plain"),
        payload(added=[("explain", "True")]),
        pack_request("a", b"", [Parameter("body", "", BODY[:9]), Parameter("", "", BODY[9:])]),
    ],
)
def test_other_words_are_another_content(reader, other):
    """
    Also the same bytes under another name, or for another of the handler's works.
    """
    assert reader.read(JOB, other) != reader.read(JOB, payload())


def test_a_body_in_shared_memory_is_the_same_as_one_inline(reader, slot):
    """
    Where the arena was full, a body travels inline; it says the same.
    """
    far = payload(slot.descriptor)

    assert reader.size(JOB, far) == len(BODY)
    assert reader.read(JOB, far) == reader.read(JOB, payload())


def test_a_body_that_is_gone_has_no_content(reader, slot):
    """
    Its client has left; nobody waits for this answer either.
    """
    far = payload(slot.descriptor)
    slot.free()

    assert reader.read(JOB, far) is None


FAR = (1 << 40, (1 << 63) - 1)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"segment": value} for value in (1, *FAR)),
        *({"offset": value} for value in (0, 1, 4096, 4097, *FAR)),
        *({"length": value} for value in (17 << 20, *FAR)),
        *({"generation": value} for value in (0, 2, *FAR)),
    ],
)
def test_a_descriptor_that_leads_elsewhere_has_no_content(reader, slot, wrong):
    """
    A frontend is not trusted to point at memory.
    """
    assert reader.read(JOB, payload(slot.descriptor._replace(**wrong))) is None


def test_what_takes_long_to_hash_is_not_hashed(reader, monkeypatch):
    """
    Nobody else is served meanwhile.
    """
    monkeypatch.setattr(contents_module, "MAX_CONTENT_BYTES", len(BODY) - 1)

    assert reader.read(JOB, payload()) is None


@pytest.mark.parametrize("rubbish", [b"", b"\xc1", b"\x90", b"payload"])
def test_rubbish_has_no_content(reader, rubbish):
    assert reader.size(JOB, rubbish) is None
    assert reader.read(JOB, rubbish) is None
