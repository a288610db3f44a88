"""TorchServe's workflow archives: contracts/torchserve.md 4.1 and 4.2."""

from __future__ import annotations

import json
import zipfile

import pytest

from stoker.archives.archive import ArchiveRequest
from stoker.archives.cache import ArchiveCache
from stoker.archives.graph import CLIENT, Graph, GraphNode, NodeInput
from stoker.archives.obtaining import ArchivePlaces
from stoker.archives.war import pack_war, resolve_war
from stoker.archives.war_spec import read_war_spec
from stoker.archives.yaml_document import parse_yaml
from stoker.errors import GraphInvalid, InvalidParameter, StokerError, WorkflowInvalid

SPEC = """
models:
  min-workers: 1
  m0: {url: a.mar}
  max-workers: 3
  batch-size: 4
  max-batch-delay: 5000
  retry-attempts: 3
  timeout-ms: 200
  m1: {url: b.mar, batch-size: 2}
dag:
  pre: [m0, m1]
  m0: [post]
  m1: [post]
  post: []
"""


def read(text: str):
    return read_war_spec(parse_yaml(text.encode())[0], "w.war")


def test_globals_hold_for_the_models_that_follow_them():
    """
    The peer reads the file in order (4.2); functions have the last word of each.
    """
    nodes = {node.name: node for node in read(SPEC).nodes}

    m0, m1, pre = nodes["m0"], nodes["m1"], nodes["pre"]
    assert (m0.max_workers, m0.batch_size, m0.batch_delay_ms, m0.retries) == (1, 1, 50, 1)
    assert (m1.max_workers, m1.batch_size, m1.batch_delay_ms, m1.timeout_ms) == (3, 2, 5000, 200)
    assert (pre.max_workers, pre.batch_size, pre.batch_delay_ms, pre.retries) == (1, 1, 0, 3)
    assert pre.timeout_ms == 200


def test_a_node_gets_a_body_or_its_parents_by_name():
    """
    4.3, point 2.
    """
    graph = read(SPEC).graph("w")

    inputs = {node.name: node.inputs for node in graph.nodes}
    index = {node.name: at for at, node in enumerate(graph.nodes)}
    assert inputs["pre"] == (NodeInput("", CLIENT),)
    assert inputs["m0"] == (NodeInput("body", index["pre"]),)
    assert inputs["post"] == (NodeInput("m0", index["m0"]), NodeInput("m1", index["m1"]))
    assert [node.model for node in graph.nodes][index["m1"]] == "w__m1"
    assert graph.outputs == (index["post"],)


@pytest.mark.parametrize("leaf", ["", "[]", "[null]", "['  ']"])
def test_blank_children_do_not_count(leaf):
    """
    So that `leaf: []` may be written (4.2).
    """
    spec = read(f"models: {{}}\ndag:\n  a: [b]\n  b: {leaf}\n")

    assert [node.name for node in spec.nodes] == ["a", "b"]


@pytest.mark.parametrize(
    ("dag", "message"),
    [
        ("a: [a]", "Self loop exception"),
        ("a: [b]\n  b: [a]", "loop exception"),
        ("a: [c]\n  b: [c]", "DAG should have only one start node"),
        ("a: [b]\n  b: [c]\n  c: [a]", "DAG should have only one start node"),
        ("a: [b]\n  b: [c]\n  c: [d]\n  d: [b]", "Not a valid DAG"),
    ],
)
def test_what_is_no_graph_is_refused(dag, message):
    """
    The peer's words (4.2).
    """
    with pytest.raises(GraphInvalid) as refused:
        read(f"models: {{}}\ndag:\n  {dag}\n")

    assert refused.value.message == message


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "models: {}",
        "models: {}\ndag: {}",
        "models: []\ndag: {a: [b]}",
        "models: {m: {}}\ndag: {m: []}",
        "models: {m: 7}\ndag: {m: []}",
        "models: {m: {url: a.mar, batch-size: 0}}\ndag: {m: []}",
        "models: {retry-attempts: many}\ndag: {a: [b]}",
        "models: {timeout-ms: -1}\ndag: {a: [b]}",
        "models: {}\ndag: {a: [not-a-function]}",
        "models: {}\ndag: {a: ['x/y']}",
        "models: {}\ndag: {" + ", ".join(f"f{i}: [f{i + 1}]" for i in range(300)) + "}",
    ],
)
def test_a_wrong_specification_says_what_is_wrong(text):
    """
    Before anything is loaded.
    """
    with pytest.raises(WorkflowInvalid) as refused:
        read(text)

    assert refused.value.message.endswith(".")


def test_a_graph_has_no_way_back():
    """
    Whatever notation it comes from, a cycle cannot be.
    """
    nodes = (
        GraphNode("a", "a", None, (NodeInput("x", 1),)),
        GraphNode("b", "b", None, (NodeInput("x", 0),)),
    )

    with pytest.raises(ValueError, match="not there yet"):
        Graph(nodes, (1,))


# -- archives ------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def resolve(tmp_path, store):
    places = ArchivePlaces(store, tmp_path / "cache")
    cache = ArchiveCache(places.cache_dir, places.unpack_limits)
    return lambda **said: resolve_war(ArchiveRequest(**said), places, cache)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "functions.py").write_text("def pre(data, context): ...\n")
    return tmp_path / "spec.yaml", tmp_path / "functions.py"


def make(store, manifest, **members):
    with zipfile.ZipFile(store / "w.war", "w") as archive:
        archive.writestr("WAR-INF/MANIFEST.json", json.dumps(manifest))
        for name, text in members.items():
            archive.writestr(name.replace("__", "."), text)


GOOD = {
    "createdOn": "31/01/2024 12:00:00",
    "archiverVersion": "0.2.15",
    "workflow": {"workflowName": "w", "specFile": "spec.yaml", "handler": "functions.py"},
}


def test_an_archive_as_the_peers_archiver_makes_them(store, resolve):
    """
    4.1.
    """
    make(store, GOOD, spec__yaml=SPEC, functions__py="")

    archive = resolve(url="w.war")

    assert (archive.name, archive.handler) == ("w", "functions.py")
    assert (archive.folder / "functions.py").is_file()
    assert archive.content_hash is not None


def test_our_packer_makes_one_that_we_can_read(store, resolve, files):
    """
    The same bytes each time.
    """
    first = pack_war("flow", *files, store).read_bytes()
    again = pack_war("flow", *files, store, force=True)

    assert again.read_bytes() == first
    assert resolve(url="flow.war").name == "flow"
    with pytest.raises(InvalidParameter):
        pack_war("flow", *files, store)


def without(*path):
    manifest = json.loads(json.dumps(GOOD))
    inner = manifest
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return manifest


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (without("workflow"), "Missing Workflow entry in manifest file."),
        (without("workflow", "workflowName"), "Workflow name is not defined."),
        (without("archiverVersion"), "Workflow archive version is not defined."),
        (without("createdOn"), "Workflow archive createdOn is not defined."),
    ],
)
def test_a_manifest_that_lacks_something_is_refused_in_the_peers_words(
    store, resolve, manifest, message
):
    """
    4.1.
    """
    make(store, manifest, spec__yaml=SPEC, functions__py="")

    with pytest.raises(WorkflowInvalid) as refused:
        resolve(url="w.war")

    assert refused.value.message == message


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("specFile", "../secret.yaml"),
        ("specFile", "/etc/passwd"),
        ("specFile", "gone.yaml"),
        ("specFile", None),
        ("handler", "../functions.py"),
        ("handler", None),
    ],
)
def test_files_of_the_manifest_lie_in_the_archive(store, resolve, entry, value):
    """
    A hostile manifest reads nothing else.
    """
    manifest = {**GOOD, "workflow": {**GOOD["workflow"], entry: value}}
    make(store, manifest, spec__yaml=SPEC, functions__py="")

    with pytest.raises(WorkflowInvalid):
        resolve(url="w.war")


@pytest.mark.parametrize("url", [None, "", "gone.war", "../w.war"])
def test_what_is_not_there_is_an_error_of_ours(resolve, url):
    """
    The dialect has the texts.
    """
    with pytest.raises(StokerError):
        resolve(url=url)
