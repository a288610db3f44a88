"""DJL Serving's workflow definitions: contracts/djl-serving.md section 8."""

from __future__ import annotations

import json

import pytest

from stoker.archives.djl_workflow import ENSEMBLE_HANDLER, parse_definition
from stoker.archives.graph import CLIENT, NodeInput
from stoker.errors import GraphInvalid, StokerError, WorkflowInvalid


def read(workflow, names=("m", "m1", "m2"), functions=("pre", "post"), **more):
    document = {
        "name": "w",
        "models": {name: f"{name}.zip" for name in names},
        "functions": {name: f"functions:{name}" for name in functions},
        "workflow": workflow,
        **more,
    }
    return parse_definition(json.dumps(document).encode(), "w.json", "/store/w")


def calls(definition):
    """Each node's name and what it takes, by names."""
    nodes = definition.calls.nodes
    names = {CLIENT: "in", **{at: node.name for at, node in enumerate(nodes)}}
    return {node.name: [names[item.source] for item in node.inputs] for node in nodes}


SEQUENCE = {"a": ["pre", "in"], "b": ["m", "a"], "out": ["post", "b"]}


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        (SEQUENCE, {"pre": ["in"], "m": ["pre"], "post": ["m"]}),
        (
            {"out": ["post", ["m", ["pre", "in"]]]},
            {"pre": ["in"], "m": ["pre"], "post": ["m"]},
        ),
        (
            {"out": ["ensemble", ["functionsApply", ["m1", "m2"], "in"]]},
            {"m1": ["in"], "m2": ["in"], "ensemble": ["m1", "m2"]},
        ),
        ({"out": ["m", ["id", "in"]]}, {"m": ["in"]}),
        ({"out": ["id", "in"]}, {"id": ["in"]}),
        ({"a": "in", "out": ["m", "a"]}, {"m": ["in"]}),
        (
            {"a": ["pre", "in"], "out": ["post", ["m1", "a"], ["m2", "a"]]},
            {"pre": ["in"], "m1": ["pre"], "m2": ["pre"], "post": ["m1", "m2"]},
        ),
        ({"out": ["m", ["m", "in"]]}, {"m": ["in"], "m#2": ["m"]}),
    ],
)
def test_expressions_become_the_graph_that_out_needs(workflow, expected):
    """
    8.2: every variable at most once, and nothing that `out` has no need of.
    """
    assert calls(read({**workflow, "idle": ["m", "in"]})) == expected


def test_a_function_knows_which_argument_and_which_element_it_gets():
    """
    `post` takes a list and one more.
    """
    definition = read({"out": ["post", ["functionsApply", ["m1", "m2"], "in"], "in"]})

    post = definition.calls.nodes[-1]
    assert post.inputs == (
        NodeInput("0[0]:body", 0, keeps_type=True),
        NodeInput("0[1]:body", 1, keeps_type=True),
        NodeInput("1:", CLIENT),
    )


def test_only_what_is_needed_is_loaded():
    """
    A model that no expression calls costs no worker.
    """
    definition = read({"out": ["ensemble", ["functionsApply", ["m1", "m2"], "in"]]})

    assert set(definition.models) == {"m1", "m2"}
    assert definition.functions == {"ensemble": ENSEMBLE_HANDLER}


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        (
            {"a": ["pre", "b"], "b": ["pre", "a"], "out": ["m", "a"]},
            "Your workflow contains a cycle with target: a",
        ),
        ({"out": ["m", "no"]}, "Expected to find variable but it is not defined: no"),
        ({"a": ["m", "in"]}, "Expected to find variable but it is not defined: out"),
        ({"out": ["no", "in"]}, "Could not find find model or function: no"),
        (
            {"out": ["m", "in", "in"]},
            "The model or worker type m should have one arg, but has 2",
        ),
        (
            {"out": ["functionsApply", ["m1"], "in"]},
            "The workflow did not return an output. Instead it returned an ArrayList",
        ),
        ({"out": ["id"]}, "Expected one argument to id"),
        ({"out": ["ensemble"]}, "Expected one arguments, the list of items to ensemble"),
        (
            {"out": ["functionsApply", ["m1"]]},
            "Expected two arguments: the list of functions to run and the input, but found 1",
        ),
        ({"out": ["adapter", "a", "in"]}, "Adapters are not served by this release."),
        ({"out": 7}, "The expression of out is no call"),
    ],
)
def test_what_cannot_be_run_is_found_when_it_is_registered(workflow, message):
    """
    8.3: the peer's words, which it says at the first request.
    """
    with pytest.raises(GraphInvalid) as refused:
        read(workflow)

    assert refused.value.message == message


def test_fields_of_a_model_become_settings_and_options():
    """
    8.2; unknown ones are ignored.
    """
    model = {
        "modelUrl": "{model_dir}/m",
        "version": "v1",
        "batchSize": 4,
        "maxBatchDelayMillis": 20,
        "maxIdleSeconds": 60,
        "minWorkers": 1,
        "maxWorkers": 3,
        "queueSize": 10,
        "engineName": "Python",
        "loadOnDevices": "cpu",
        "options": {"a": 1},
        "arguments": {"b": True},
        "application": "cv",
    }

    found = read({"out": ["m", "in"]}, models={"m": model}).models["m"]

    assert found.url == "/store/w/m"
    assert found.version == "v1"
    assert found.settings == {
        "batch_size": 4,
        "max_batch_delay_s": pytest.approx(0.02),
        "max_idle_s": 60.0,
        "min_workers": 1,
        "max_workers": 3,
        "queue_capacity": 10,
        "engine": "Python",
        "devices": "cpu",
    }
    assert found.options == {"a": "1", "b": "true"}


def test_the_same_model_is_one_pool_wherever_it_is_called():
    """
    Two workflows that call it share its queue and workers.
    """
    one = read({"out": ["m", "in"]}).models["m"]
    other = read({"out": ["post", ["m", "in"]]}).models["m"]
    differs = read(
        {"out": ["m", "in"]}, models={"m": {"modelUrl": "m.zip", "batchSize": 2}}
    ).models["m"]

    assert one.identity == other.identity
    assert one.identity != differs.identity


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("name: w\nmodels: {m: '{url}'}\nworkflow: {out: [m, in]}\n", {"url": "x.zip"}),
        (
            '{"name": "w", "models": {"m": "{url}"}, "workflow": {"out": ["m", "in"]}}',
            {"url": 'x".zip'},
        ),
    ],
)
def test_yaml_is_json_and_names_in_braces_are_filled_in(text, parameters):
    """
    8.1, 8.4; what is filled in cannot end the text it stands in.
    """
    definition = parse_definition(text.encode(), "w", "/d", parameters)

    assert definition.models["m"].url == parameters["url"]


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"\xff",
        b"{",
        b'{"workflow": {"out": ["id", "in"]}}',
        b'{"models": {}, "functions": {"f": "com.example.F"}, "workflow": {"out": ["f", "in"]}}',
        b'{"models": {"m": {"translator": "T"}}, "workflow": {"out": ["m", "in"]}}',
        b'{"models": {"m": {}}, "workflow": {"out": ["m", "in"]}}',
        b'{"models": {"m": 7}, "workflow": {"out": ["m", "in"]}}',
        b'{"models": {"m/n": "u"}, "workflow": {"out": ["m/n", "in"]}}',
        b'{"name": "a b", "models": {}, "workflow": {"out": ["id", "in"]}}',
        b'{"models": {"m": {"modelUrl": "u", "batchSize": "x"}}, "workflow": {"out": ["m", "in"]}}',
        b'{"models": {}, "workflow": {"out": ' + b"[" * 200 + b"]" * 200 + b"}}",
    ],
)
def test_a_wrong_definition_is_refused_with_a_sentence(text):
    """
    Java classes are said to be what they are.
    """
    with pytest.raises((WorkflowInvalid, StokerError)) as refused:
        parse_definition(text, "w.json", "/d")

    assert refused.value.message
