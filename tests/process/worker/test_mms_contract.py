"""Handlers written for MMS, in a real worker: contracts/mms.md 10, 11."""

from __future__ import annotations

import json

import pytest

from stoker.wire import frames as f
from stoker.wire.loading import LoadSpec

pytestmark = pytest.mark.slow

MANIFEST = {"modelServerVersion": "1.0", "model": {"modelName": "m", "handler": "handler"}}
MMS = {"contract": "mms", "manifest": MANIFEST}

LAZY = """
    class ModelHandler:
        def __init__(self):
            self.error = None
            self._context = None
            self.initialized = False

        def initialize(self, context):
            self._context = context
            self.initialized = True

        def handle(self, data, context):
            names = [sorted(item) for item in data]
            kinds = [type(next(iter(item.values()))).__name__ for item in data]
            return [[n, k] for n, k in zip(names, kinds)]

    _service = ModelHandler()

    def handle(data, context):
        if not _service.initialized:
            _service.initialize(context)
        if data is None:
            return None
        return _service.handle(data, context)
"""

TELLING = """
    def handle(data, context):
        if data is None:
            return None
        known = context.system_properties
        return [
            {
                "version": known["server_version"],
                "name": known["server_name"],
                "gpu": known["gpu_id"],
                "batch": known["batch_size"],
                "store": type(context.metrics).__name__,
                "manifest": context.manifest is not None,
                "processors": len(context.request_processor),
                "id": context.get_request_id(i) == context.request_ids[i],
            }
            for i in range(len(data))
        ]
"""

GRUMBLING = """
    class Service:
        def initialize(self, context):
            raise KeyError("weights")

        def handle(self, data, context):
            return ["served"] * len(data)
"""

LEGACY = """
    from mms.model_service.mxnet_model_service import SingleNodeService

    class Doubling(SingleNodeService):
        def _inference(self, data):
            return [f"{self.model_name} {self.gpu} {bytes(data[0]).decode()}"]
"""


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("application/json", "dict"),
        ("text/plain", "str"),
        ("text/csv", "str"),
        ("", "bytearray"),
        ("image/jpeg", "bytearray"),
        ("application/x-www-form-urlencoded", "bytearray"),
    ],
)
def test_values_are_decoded_as_the_peer_does(serve, make_request, kind, seen):
    """
    11; and the examples' own base class with its lazy module-level service runs unchanged (10.7).
    """
    peer = serve(LAZY, **MMS)

    answer = peer.ask(make_request(b'{"a": 1}', kind)).one()

    assert json.loads(answer.body) == [["body"], seen]


def test_a_handler_sees_the_peers_context(serve, make_request):
    """
    10.6.
    """
    peer = serve(TELLING, batch_size=4, **MMS)

    assert json.loads(peer.ask(make_request()).one().body) == {
        "version": "1.1.11",
        "name": "MMS",
        "gpu": None,
        "batch": 4,
        "store": "MetricsStore",
        "manifest": True,
        "processors": 1,
        "id": True,
    }


def test_a_class_whose_initialize_fails_serves_all_the_same(
    spawn_worker, write_handler, make_request
):
    """
    As the peer's workers do; but the supervisor is told (10.3).
    """
    folder = write_handler(GRUMBLING)
    peer = spawn_worker()

    outcome = peer.load(
        LoadSpec(model="m", version="1.0", handler="handler", model_dir=folder, **MMS)
    )

    assert isinstance(outcome, f.Loaded)
    assert outcome.info["flaw"] == "KeyError: 'weights'"
    assert peer.ask(make_request()).one().body == b"served"
    assert "KeyError: 'weights'" in peer.output()[1]


def test_a_service_of_0_x_is_built_its_own_way(serve, make_request, tmp_path):
    """
    From the class that derives from SingleNodeService, with the signature it names (10.4).
    """
    (tmp_path / "signature.json").write_text('{"inputs": [{"data_name": "x"}]}')
    manifest = {"Model": {"Service": "handler.py", "Signature": "signature.json"}}

    peer = serve(LEGACY, contract="mms", manifest=manifest)

    answer = peer.ask(make_request(b"here", name="x")).one()
    assert answer.body == b"m None here"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n", "Expected only one class in custom service code or a function entry point []"),
        (
            "class A:\n    def handle(self, data, context): ...\n",
            "Expect handle and initialize methods in class",
        ),
        ("def handle(data, context):\n    raise OSError('no weights')\n", "OSError: no weights"),
    ],
)
def test_what_cannot_be_loaded_says_why(spawn_worker, write_handler, source, said):
    """
    10.2, 10.3.
    """
    folder = write_handler(source)

    outcome = spawn_worker().load(
        LoadSpec(model="m", version="1.0", handler="handler", model_dir=folder, **MMS)
    )

    assert isinstance(outcome, f.LoadFailed)
    assert said in outcome.last_line
