"""Archives' imports of the peer's package work in a worker (contract 7.7)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import stoker.compat

FOLDER = str(Path(stoker.compat.__file__).parent)

LINES = [
    "from ts.torch_handler.base_handler import BaseHandler",
    "from ts.torch_handler.image_classifier import ImageClassifier",
    "from ts.torch_handler.vision_handler import VisionHandler",
    "from ts.torch_handler.request_envelope.base import BaseEnvelope",
    "from ts.torch_handler.request_envelope.body import BodyEnvelope",
    "from ts.torch_handler.request_envelope.json import JSONEnvelope",
    "from ts.torch_handler.request_envelope.kserve import KServeEnvelope",
    "from ts.torch_handler.request_envelope.kservev2 import KServev2Envelope",
    "from ts.context import Context",
    "from ts.handler_utils.timer import timed",
    "from ts.handler_utils.hf_batch_streamer import TextIteratorStreamerBatch",
    "from ts.handler_utils.micro_batching import MicroBatching",
    "from ts.handler_utils.utils import import_class",
    "from ts.handler_utils.utils import send_intermediate_predict_response",
    "from ts.metrics.dimension import Dimension",
    "from ts.metrics.metric import Metric",
    "from ts.metrics.metric_type_enum import MetricTypes",
    "from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl",
    "from ts.metrics.metrics_store import MetricsStore",
    "from ts.protocol.otf_message_handler import send_intermediate_predict_response",
    "from ts.utils.util import map_class_to_label, load_label_mapping",
    "from ts.utils.util import list_classes_from_module, check_valid_pt2_backend",
    "from ts.utils.util import CLEANUP_REGEX, PredictionException",
    "from ts.service import PredictionException, emit_metrics",
    "import ts; assert ts.__version__ == '0.12.0'",
    "import ts.version; assert ts.version.__version__ == '0.12.0'",
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


def test_what_user_code_imports_exists_and_needs_no_torch():
    """
    Importing a handler's base class must not cost an `import torch`
    (pytorch/serve#3350).
    """
    code = "\n".join([*LINES, "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"])

    done = run(code)

    assert done.returncode == 0, done.stderr


def test_the_names_are_the_same_things_everywhere():
    done = run(
        "import stoker.handlers, ts.service, ts.utils.util, ts.torch_handler.base_handler as b\n"
        "assert ts.service.PredictionException is ts.utils.util.PredictionException\n"
        "assert ts.service.PredictionException is stoker.handlers.PredictionException\n"
        "assert b.BaseHandler is stoker.handlers.BaseHandler\n"
    )

    assert done.returncode == 0, done.stderr


def test_the_deprecated_place_of_a_helper_says_so():
    done = run(
        "import warnings, types\n"
        "from ts.protocol.otf_message_handler import send_intermediate_predict_response as send\n"
        "sent = []\n"
        "context = types.SimpleNamespace(cl_socket=types.SimpleNamespace(send_step=sent.append))\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    send(['a'], {0: 'id'}, 'message', 200, context)\n"
        "assert sent == [['a']]\n"
        "assert seen[0].category is PendingDeprecationWarning\n"
    )

    assert done.returncode == 0, done.stderr
