"""Handlers that hold a torch model."""

from __future__ import annotations

import base64
import io
import sys
import types

import pytest

from stoker.handlers import BaseHandler, ImageClassifier
from stoker.worker.context import Context

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.factor * x
"""


@pytest.fixture
def make_context(tmp_path, monkeypatch):
    """A context whose model_dir is importable, as in a worker."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "net", raising=False)

    def make(config=None, **model) -> Context:
        return Context(
            "m", str(tmp_path), {"model": model}, 1, None, "0.12.0", model_yaml_config=config
        )

    yield make
    sys.modules.pop("net", None)


def test_an_eager_model_needs_its_file_and_its_weights(make_context, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    torch.save({"factor": torch.tensor(3.0)}, tmp_path / "net.pt")
    handler = BaseHandler()

    context = make_context(modelFile="net.py", serializedFile="net.pt")
    handler.initialize(context)

    assert handler.initialized
    assert handler.device == torch.device("cpu")
    assert not handler.model.training
    assert handler.handle([{"body": [1.0, 2.0]}, {"data": [3.0, 4.0]}], context) == [
        [3.0, 6.0],
        [9.0, 12.0],
    ]


class Anything:
    """What a pickle may hold."""


def test_weights_run_no_code_unless_the_archive_says_so(make_context, tmp_path):
    """
    torch.load unpickles, and a pickle can run anything: archives come from
    elsewhere.
    """
    (tmp_path / "net.py").write_text(NET)
    torch.save({"factor": torch.tensor(3.0), "more": Anything()}, tmp_path / "net.pt")
    model = {"modelFile": "net.py", "serializedFile": "net.pt"}

    with pytest.raises(Exception, match=r"[Ww]eights"):
        BaseHandler().initialize(make_context(**model))

    trusting = make_context({"handler": {"weights_only": False}}, **model)
    with pytest.raises(RuntimeError, match="more"):  # it was read: its keys are compared
        BaseHandler().initialize(trusting)


class PlusOne(torch.nn.Module):
    def forward(self, x):
        return x + 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_needs_its_file_only(make_context, tmp_path):
    torch.jit.trace(PlusOne(), torch.zeros(1, 2)).save(str(tmp_path / "m.pt"))
    handler = BaseHandler()

    context = make_context(serializedFile="m.pt")
    handler.initialize(context)

    assert handler.handle([{"body": [1.0, 2.0]}], context) == [[2.0, 3.0]]


def test_exported_programs_need_their_file_only(make_context, tmp_path):
    program = torch.export.export(PlusOne(), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "m.pt2")
    handler = BaseHandler()

    context = make_context(serializedFile="m.pt2")
    handler.initialize(context)

    assert handler.handle([{"body": [1.0, 2.0]}], context) == [[2.0, 3.0]]


@pytest.mark.parametrize("model", [{}, {"serializedFile": "weights.bin"}])
def test_an_archive_without_a_model_is_refused(make_context, model):
    with pytest.raises(RuntimeError, match="No model weights could be loaded"):
        BaseHandler().initialize(make_context(**model))


def test_a_model_file_defines_one_class(make_context, tmp_path):
    (tmp_path / "net.py").write_text(NET + "class Other: pass\n")

    with pytest.raises(RuntimeError, match="only one class"):
        BaseHandler().initialize(make_context(modelFile="net.py"))


# -- images ----------------------------------------------------------------------


class Red(ImageClassifier):
    """Ten lines of a user: how red, green and blue an image is."""

    topk = 2

    def initialize(self, context):
        self.context = context
        self.device = torch.device("cpu")
        self.mapping = {"0": "red", "1": "green", "2": "blue"}
        self.model = lambda images: images.mean(dim=(2, 3)) * 10


def png(size: tuple[int, int], colour: tuple[int, int, int] | int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def classifier(make_context):
    handler = Red()
    context = make_context()
    handler.initialize(context)
    return lambda *rows: handler.handle(list(rows), context)


def test_images_come_as_bytes_or_base64(classifier):
    red, blue = png((300, 260), (255, 0, 0)), png((224, 500), (0, 0, 255))

    results = classifier({"data": bytearray(red)}, {"body": base64.b64encode(blue).decode()})

    assert [next(iter(result)) for result in results] == ["red", "blue"]
    assert [len(result) for result in results] == [2, 2]
    assert sum(results[0].values()) == pytest.approx(1.0, abs=1e-3)


def test_grey_and_transparent_images_are_understood(classifier):
    """
    The peer fails for what is not RGB, and its users write converters.
    """
    assert len(classifier({"data": png((10, 10), 128, "L")})) == 1
    assert len(classifier({"data": png((10, 10), (1, 2, 3, 4), "RGBA")})) == 1


def test_images_are_scaled_and_cropped_like_torchvision_does(classifier):
    tensor = ImageClassifier().image_processing(Image.new("RGB", (640, 480), (255, 255, 255)))

    assert tensor.shape == (3, 224, 224)
    assert tensor[0, 0, 0] == pytest.approx((1 - 0.485) / 0.229)
    assert tensor[2, 100, 100] == pytest.approx((1 - 0.406) / 0.225)


def test_image_processing_may_be_any_callable(make_context):
    """
    Subclasses put a torchvision Compose there, as a class attribute.
    """

    class Compose:
        def __call__(self, image):
            return torch.full((3, 2, 2), float(image.size[0]))

    class Mine(Red):
        image_processing = Compose()

    handler = Mine()
    handler.initialize(make_context())

    assert handler.preprocess([{"data": png((7, 7), (0, 0, 0))}]).unique().tolist() == [7.0]


def test_lists_of_numbers_are_taken_as_they_are(make_context):
    handler = Red()
    handler.initialize(make_context())

    assert handler.preprocess([{"body": [[1, 2], [3, 4]]}]).tolist() == [[[1, 2], [3, 4]]]


def test_there_are_no_more_results_than_classes(make_context):
    handler = Red()
    handler.initialize(make_context())
    handler.set_max_result_classes(9)

    assert handler.get_max_result_classes() == 9
    assert len(handler.postprocess(torch.zeros(1, 3))[0]) == 3


def test_intels_extension_gets_the_model_where_the_operator_wants_that(
    make_context, tmp_path, monkeypatch, capsys
):
    """
    `ipex_enable`; without the package the handler works all the same, and says so.
    """
    (tmp_path / "net.py").write_text(NET)
    context = make_context(modelFile="net.py")
    monkeypatch.setenv("TS_IPEX_ENABLE", "true")

    without = BaseHandler()
    without.initialize(context)
    extension = types.ModuleType("intel_extension_for_pytorch")
    extension.optimize = lambda model: ("optimised", model)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "intel_extension_for_pytorch", extension)
    with_it = BaseHandler()
    with_it.initialize(context)

    assert type(without.model).__name__ == "Net"
    assert "ipex_enable is without effect" in capsys.readouterr().err
    assert with_it.model[0] == "optimised"
