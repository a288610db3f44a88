"""Archives that are a TorchScript file: contracts/djl-serving.md 10."""

from __future__ import annotations

import json

import pytest

from stoker.worker.djl import torchscript
from stoker.worker.djl.inputs import Input, join
from stoker.worker.djl.tensors import read_ndlist, write_ndlist, write_npz

torch = pytest.importorskip("torch")
numpy = pytest.importorskip("numpy")
pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture
def model_dir(tmp_path, monkeypatch):
    class Twice(torch.nn.Module):
        def forward(self, x):
            return x * 2

    monkeypatch.setattr(torchscript, "_loaded", {})
    torch.jit.script(Twice()).save(str(tmp_path / "model.pt"))
    first = Input()
    first.properties["model_dir"] = str(tmp_path)
    first.properties["device_id"] = "-1"
    assert torchscript.handle(first) is None
    return tmp_path


def ask(body, kind=""):
    asked = Input()
    if kind:
        asked.properties["content-type"] = kind
    asked.content.add("data", body)
    return asked


def test_arrays_in_arrays_out(model_dir):
    """
    `tensor/ndlist`, also when nothing says so.
    """
    sent = write_ndlist([numpy.ones((2, 2), "f4")])

    for kind in ("", "tensor/ndlist"):
        output = torchscript.handle(ask(sent, kind))

        (array,) = read_ndlist(output.content.value_at(0))
        assert array.tolist() == [[2.0, 2.0], [2.0, 2.0]]
        assert output.get_property("content-type") == "tensor/ndlist"


def test_npz_and_json_answer_in_kind(model_dir):
    """
    For clients without a library of tensors.
    """
    npz = torchscript.handle(ask(write_npz([numpy.ones(2, "f4")]), "tensor/npz"))
    plain = torchscript.handle(ask(b"[1, 2]", "application/json"))
    keyed = torchscript.handle(ask(b'{"inputs": [[1, 2]]}', "application/json"))

    assert read_ndlist(npz.content.value_at(0))[0].tolist() == [2.0, 2.0]
    assert json.loads(plain.content.value_at(0)) == [2.0, 4.0]
    assert json.loads(keyed.content.value_at(0)) == [2.0, 4.0]


def test_every_request_of_a_batch_has_its_answer(model_dir):
    """
    13.5.
    """
    asked = [ask(f"[{n}]".encode(), "application/json") for n in range(3)]

    output = torchscript.handle(join(asked))

    assert output.content.get_keys() == ["batch_0", "batch_1", "batch_2"]
    assert [json.loads(value) for value in output.content.get_values()] == [[0.0], [2.0], [4.0]]


def test_without_a_file_there_is_nothing_to_load(tmp_path):
    """
    Several files, of which none is called so, say nothing.
    """
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).touch()

    assert torchscript.model_file(tmp_path) is None
    (tmp_path / "b.pt").unlink()
    assert torchscript.model_file(tmp_path).name == "a.pt"
