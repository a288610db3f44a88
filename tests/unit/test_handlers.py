"""Helpers for handlers that need no torch."""

from __future__ import annotations

import json
import threading
import types

import pytest

from stoker.handlers import MicroBatching, PredictionException, timed
from stoker.handlers.base import body_of
from stoker.handlers.labels import load_label_mapping, map_class_to_label
from stoker.handlers.modules import import_class, list_classes_from_module
from stoker.worker.metrics import Dimension, MetricsCache, MetricTypes, UnknownMetric


def test_a_refusal_has_a_message_and_a_status():
    error = PredictionException("too long", 413)

    assert (error.message, error.error_code) == ("too long", 413)
    assert PredictionException("x").error_code == 500


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"0": "cat"}, {"0": "cat"}),
        ({"0": ["n01", "cat"]}, {"0": "cat"}),
        ({"object_type_names": ["a", "b"]}, {"0": "a", "1": "b"}),
    ],
)
def test_label_files_of_every_known_form_are_read(tmp_path, content, expected):
    path = tmp_path / "index_to_name.json"
    path.write_text(json.dumps(content))

    assert load_label_mapping(path) == expected


def test_no_label_file_is_no_mapping(tmp_path):
    assert load_label_mapping(tmp_path / "none.json") is None


@pytest.mark.parametrize("content", [["a"], {"0": 1}, {"0": []}])
def test_a_label_file_of_another_form_is_refused(tmp_path, content):
    path = tmp_path / "index_to_name.json"
    path.write_text(json.dumps(content))

    with pytest.raises(ValueError, match=r"index_to_name\.json"):
        load_label_mapping(path)


def test_probabilities_get_their_labels():
    probs = [[0.9, 0.1], [0.6, 0.4]]

    assert map_class_to_label(probs) == [{"0": 0.9, "1": 0.1}, {"0": 0.6, "1": 0.4}]
    assert map_class_to_label(probs, {"7": "cat"}, [[7, 3], [3, 7]]) == [
        {"cat": 0.9, "3": 0.1},
        {"3": 0.6, "cat": 0.4},
    ]


def test_only_classes_at_home_in_a_module_count():
    module = types.ModuleType("somewhere")
    module.Imported = dict
    module.Mine = type("Mine", (list,), {"__module__": "somewhere"})

    assert list_classes_from_module(module) == [module.Mine]
    assert list_classes_from_module(module, dict) == []


def test_classes_are_imported_by_name():
    assert import_class("json.JSONEncoder") is json.JSONEncoder
    assert import_class("JSONEncoder", "json") is json.JSONEncoder
    assert import_class("encoder.JSONEncoder", "json") is json.JSONEncoder
    with pytest.raises(ImportError):
        import_class("json.dumps")
    with pytest.raises(ImportError):
        import_class("Alone")


def test_the_body_of_a_row_is_data_or_body():
    assert body_of({"data": 0, "body": 1}) == 0
    assert body_of({"body": 1}) == 1
    assert body_of([1]) == [1]


class Steps:
    """A handler whose steps can be watched."""

    def __init__(self, metrics=None):
        self.context = types.SimpleNamespace(
            metrics=metrics, model_yaml_config={"handler": {"profile": True}}
        )
        self.parts = []
        self.threads = set()

    @timed
    def preprocess(self, data):
        self.threads.add(threading.current_thread().name)
        return [int(item) for item in data]

    def inference(self, data):
        self.parts.append((self.batching.get_micro_batch_idx(), len(data)))
        if 13 in data:
            raise ValueError("thirteen")
        return [item * 2 for item in data]

    def postprocess(self, data):
        return [str(item) for item in data]


@pytest.fixture
def steps():
    steps = Steps(MetricsCache("m"))
    steps.batching = MicroBatching(steps, micro_batch_size=2)
    yield steps
    steps.batching.parallelism = {}  # ends the threads


def test_micro_batches_come_back_in_order(steps):
    steps.batching.parallelism = {"preprocess": 2, "inference": 1, "postprocess": 2}

    results = steps.batching(["1", "2", "3", "4", "5"], steps.context)

    assert results == ["2", "4", "6", "8", "10"]
    assert steps.parts == [(0, 2), (1, 2), (2, 1)]


def test_an_error_in_a_micro_batch_fails_the_batch_and_not_the_next(steps):
    with pytest.raises(ValueError, match="thirteen"):
        steps.batching(["1", "2", "13", "4"], steps.context)

    assert steps.batching(["5"], steps.context) == ["10"]


def test_micro_batching_refuses_what_it_does_not_know(steps):
    with pytest.raises(ValueError, match="postproces="):
        steps.batching.parallelism = {"postproces": 2}


def test_steps_are_timed_when_the_config_asks(capsys):
    steps = Steps(MetricsCache("m"))

    steps.preprocess(["1"])
    steps.context.model_yaml_config = {}
    steps.preprocess(["1"])

    assert capsys.readouterr().out.count("[METRICS]ts_handler_preprocess.Milliseconds:") == 1


# -- metrics -----------------------------------------------------------------


@pytest.fixture
def metrics():
    return MetricsCache("m", {0: "id-0", 1: "id-1"})


def test_metrics_are_printed_in_the_form_that_is_parsed(metrics, capsys):
    metrics.add_counter("hits", 2, None, [Dimension("Kind", "x")])

    line = capsys.readouterr().out

    start = "[METRICS]hits.Count:2|#Kind:x,ModelName:m,Level:Model|#type:COUNTER|#hostname:"
    assert line.startswith(start)
    assert line.endswith(",id-0,id-1\n")


def test_counters_add_up_and_gauges_do_not(metrics):
    for _ in range(2):
        metrics.add_counter("c", 2)
        metrics.add_time("t", 2)

    assert list(metrics.get_metric("c").values.values()) == [4]
    assert list(metrics.get_metric("t", MetricTypes.GAUGE).values.values()) == [2]


def test_dimensions_of_one_update_do_not_stay(metrics):
    """
    The peer changes its default argument; labels pile up there.
    """
    metrics.add_counter("c", 1)
    metrics.add_counter("d", 1)

    assert metrics.get_metric("d").dimension_names == ("ModelName", "Level")


def test_a_defined_metric_can_be_updated_directly(metrics, capsys):
    metric = metrics.add_metric_to_cache("g", "ms", ["A", "B"], MetricTypes.GAUGE)

    metric.add_or_update(1.5, ["a", "b"], "id-9")
    metric.add_or_update(1.5, ["a"])
    metric.update(2.5, "id-9", [Dimension("A", "a"), Dimension("B", "b")])

    out, err = capsys.readouterr()
    assert metric.values == {("a", "b"): 2.5}
    assert out.count("\n") == 2
    assert "dropped" in err


def test_counters_cannot_go_down(metrics, capsys):
    metrics.add_counter("c", -1)

    assert metrics.get_metric("c").values == {}
    assert "cannot go down" in capsys.readouterr().err


def test_errors_and_sizes_have_their_forms(metrics, capsys):
    metrics.add_error("Bad", 1)
    metrics.add_size("s", 1, 1, "kB")
    metrics.add_percent("p", 50)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[METRICS]Bad.unit:1|#Level:Error|#type:COUNTER|")
    assert lines[1].startswith("[METRICS]s.Kilobytes:1|#ModelName:m,Level:Model|#type:GAUGE|")
    assert lines[1].endswith(",id-1")
    assert lines[2].startswith("[METRICS]p.Percent:50|")


@pytest.mark.parametrize(("method", "unit"), [("add_time", "min"), ("add_size", "TB")])
def test_unknown_units_are_refused(metrics, method, unit):
    with pytest.raises(ValueError, match=unit):
        getattr(metrics, method)("x", 1, None, unit)


def test_unknown_metrics_are_key_errors(metrics):
    with pytest.raises(UnknownMetric):
        metrics.get_metric("x")
