"""Archives' imports of MMS's package work in a worker (contracts/mms.md 10.7)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import stoker.compat

FOLDER = str(Path(stoker.compat.__file__).parent)

LINES = [
    "from mms.service import PredictionException, emit_metrics",
    "from mms.context import Context, RequestProcessor",
    "from mms.metrics.dimension import Dimension",
    "from mms.metrics.metric import Metric",
    "from mms.metrics.unit import Units",
    "from mms.metrics.metrics_store import MetricsStore",
    "from mms.metrics.metric_encoder import MetricEncoder",
    "from mms.metrics import system_metrics",
    "from mms.model_service.model_service import ModelService, SingleNodeService",
    "from mms.model_service.mxnet_model_service import SingleNodeService",
    "import mms.model_service.mxnet_vision_service",
    "import mms.model_service.gluon_vision_service",
    "from mms.utils.timeit_decorator import timeit",
    "from mms.utils.mxnet import image, ndarray, nlp",
    "import mms; assert mms.__version__ == '1.1.11'",
]


def run(code: str) -> subprocess.CompletedProcess[str]:
    start = f"import sys; sys.path.insert(0, {FOLDER!r})\n"
    return subprocess.run(
        [sys.executable, "-I", "-c", start + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_user_code_imports_exists_and_needs_no_mxnet():
    """
    MXNet is gone from most machines; handlers of this contract rarely use it.
    """
    code = "\n".join([*LINES, "assert not {'mxnet', 'torch', 'numpy', 'PIL'} & set(sys.modules)"])

    done = run(code)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "from mms.model_service.mxnet_model_service import MXNetBaseService",
        "from mms.model_service.gluon_vision_service import GluonVisionService",
        "from mms.service import Service",
    ],
)
def test_what_cannot_be_had_says_why(line):
    """
    At the import, with a word of what to do, not as an AttributeError later.
    """
    done = run(line)

    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "stoker" in done.stderr.splitlines()[-1]


def test_a_metrics_store_has_the_peers_signatures_and_words():
    """
    `add_metric` takes the request before the unit, the other way round than TorchServe's (14).
    """
    code = """
from mms.metrics.dimension import Dimension
from mms.metrics.metrics_store import MetricsStore
store = MetricsStore({0: "a", 1: "b"}, "m")
store.add_metric("speed", 3, 1, "percent")
store.add_counter("seen", 1)
store.add_counter("seen", 2, 0, [Dimension("Kind", "x")])
store.add_time("took", 5, None, "s")
store.add_size("held", 2, 0, "GB")
store.add_percent("full", 50)
store.add_error("broken", 1)
for call in (
    lambda: store.add_time("t", 1, None, "MB"),
    lambda: store.add_size("s", 1, None, "ms"),
    lambda: store.add_counter("c", 1, None, "Kind"),
):
    try:
        call()
    except ValueError as error:
        print(error)
"""

    done = run(code)

    assert done.returncode == 0, done.stderr
    *metrics, timed, sized, listed = done.stdout.splitlines()
    assert timed == "the unit for a timed metric should be one of ['ms', 's']"
    assert sized == "The unit for size based metric is one of ['MB','kB', 'GB', 'B']"
    assert listed == "Please provide a list of dimensions"
    assert metrics[0].startswith("[METRICS]speed.Percent:3|#ModelName:m,Level:Model|")
    assert metrics[0].endswith(",b")
    assert metrics[1].startswith("[METRICS]seen.Count:1|#ModelName:m,Level:Model|")
    assert metrics[1].endswith(",a,b")
    assert metrics[2].startswith("[METRICS]seen.Count:2|#Kind:x,ModelName:m,Level:Model|")
    assert metrics[3].startswith("[METRICS]took.Seconds:5|")
    assert len(metrics) == 7


def test_a_signature_decides_what_a_service_of_0_x_gets(tmp_path):
    """
    The first input by its name, else body or data; JSON bytes as Python (10.4).
    """
    (tmp_path / "signature.json").write_text(
        '{"inputs": [{"data_name": "img"}], "input_type": "application/json"}'
    )
    code = f"""
from mms.context import Context
from mms.model_service.mxnet_model_service import SingleNodeService
class Doubling(SingleNodeService):
    def _preprocess(self, data):
        return [2 * item for item in data[0]]
manifest = {{"Model": {{"Signature": "signature.json"}}}}
context = Context("m", {str(tmp_path)!r}, manifest, 1, None, "1.1.11")
service = Doubling("m", {str(tmp_path)!r}, manifest)
service.initialize(context)
assert service.gpu is None and service.ping() is None
assert service.signature()["input_type"] == "application/json"
print(service.handle([{{"img": bytearray(b"[1, 2]")}}], context))
print(service.handle([{{"body": b"[3]"}}], context))
manifest["Model"]["Signature"] = "nowhere.json"
try:
    service.initialize(context)
except RuntimeError as error:
    print(error)
"""

    done = run(code)

    assert done.stdout.splitlines() == ["[2, 4]", "[6]", "Signature file is not found."]


def test_sentences_become_numbers_of_one_length():
    """
    The helpers that need no MXNet work without.
    """
    code = """
from mms.utils.mxnet.nlp import encode_sentences, pad_sentence
coded, vocab = encode_sentences([["a", "b"], ["b", "c"]], start_label=1)
print(coded, sorted(vocab.values()))
print(pad_sentence(coded[0], [5, 3]))
"""

    done = run(code)

    assert done.stdout.splitlines() == ["[[1, 2], [2, 3]] [-1, 1, 2, 3]", "[1, 2, -1]"]
