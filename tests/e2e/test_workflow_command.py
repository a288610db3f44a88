"""`stoker workflow`: a graph tried without a server, and drawn by one."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from facts import DEADLINE_S
from live_server import HANDLERS

from stoker.archives.war import pack_war

pytestmark = pytest.mark.slow

DIAMOND = "models: {}\ndag:\n  pre: [left, right]\n  left: [join]\n  right: [join]\n"


def stoker(*words, stdin=None):
    command = [sys.executable, "-P", "-m", "stoker.cli", "workflow", *map(str, words)]
    return subprocess.run(
        command, input=stdin, capture_output=True, check=False, timeout=DEADLINE_S
    )


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "input").write_text("hi")

    def write(text=DIAMOND, name="flow.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_a_specification_is_tried_and_nothing_is_left(spec, tmp_path, leftovers):
    """
    The engine is a server's; only HTTP is missing.
    """
    ran = stoker("run", spec(), tmp_path / "input", "--handler", HANDLERS / "nodes.py")

    assert ran.returncode == 0, ran.stderr.decode()
    assert json.loads(json.loads(ran.stdout)["got"]["left"]) == {"left": "hi!"}
    assert b"4 nodes loaded" in ran.stderr
    assert leftovers() == []


def test_several_leaves_are_shown_by_name(spec):
    """
    As a server would put them together.
    """
    text = "models: {}\ndag:\n  pre: [left, right]\n"

    ran = stoker("run", spec(text), "-", "--handler", HANDLERS / "nodes.py", stdin=b"x")

    assert json.loads(ran.stdout) == {"left": {"left": "x!"}, "right": {"right": "x!"}}


def test_a_failing_node_is_named_with_what_its_worker_printed(spec):
    """
    Whoever tries a graph wants the traceback, not a log's name.
    """
    ran = stoker("run", spec(), "-", "--handler", HANDLERS / "nodes.py", stdin=b"refuse")

    assert ran.returncode == 1
    assert b"Node pre of workflow trial failed" in ran.stderr
    assert b"ValueError: this one is refused" in ran.stderr


def test_a_definition_of_djls_is_tried_as_well(spec, tmp_path):
    """
    Functions lie beside it.
    """
    (tmp_path / "functions.py").write_text(
        "def shout(item):\n    return item.get_as_string().upper()\n"
    )
    document = {
        "models": {},
        "functions": {"shout": "functions:shout"},
        "workflow": {"out": ["shout", "in"]},
    }

    ran = stoker("run", spec(json.dumps(document), "workflow.json"), tmp_path / "input")

    assert (ran.returncode, ran.stdout) == (0, b"HI"), ran.stderr.decode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: {}\ndag:\n  a: [a]\n", b"Self loop exception"),
        ("just: this\n", b"has neither dag nor workflow"),
        ("[", b"is not YAML"),
    ],
)
def test_a_specification_that_is_none_says_why(spec, text, said):
    """
    Without starting what could not run.
    """
    ran = stoker("run", spec(text), "-", "--handler", HANDLERS / "nodes.py", stdin=b"")

    assert (ran.returncode, said in ran.stderr) == (1, True), ran.stderr.decode()


def test_draw_shows_a_running_workflow(server, model_store, tmp_path):
    """
    The same picture as over HTTP, in a file.
    """
    (tmp_path / "spec.yaml").write_text(DIAMOND)
    pack_war("drawn", tmp_path / "spec.yaml", HANDLERS / "nodes.py", model_store)
    try:
        assert server.manage("POST", "/workflows", url="drawn.war").status == 200
        runtime_dir = ("--runtime-dir", str(server.runtime_dir))

        ran = stoker("draw", "drawn", "--output", tmp_path / "drawn.svg", *runtime_dir)
        unknown = stoker("draw", "nobody", *runtime_dir)
    finally:
        server.manage("DELETE", "/workflows/drawn")
        (model_store / "drawn.war").unlink()

    assert ran.returncode == 0, ran.stderr.decode()
    picture = ET.fromstring((tmp_path / "drawn.svg").read_bytes())
    titles = [item.text for item in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0] == "pre (drawn__pre)"
    assert unknown.returncode != 0
    assert b"404" in unknown.stderr
