"""What every dialect owes, and what makes one: a module in a folder, chosen by a listener."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from peer_errors import COMMON, WORDS, document_of

import stoker.frontend.dialects
from stoker.errors import _BY_CODE as ERRORS
from stoker.errors import ModelNotFound, SettingsError, from_wire
from stoker.frontend.dialects import load_dialect
from stoker.frontend.listeners import Role
from stoker.frontend.verb_errors import ANYWHERE, ASTRAY, GUARDED, NOWHERE, VERB_ERRORS
from stoker.settings import Settings
from stoker.settings.listeners import dialect_names, listeners_of

FREE = "http://127.0.0.1:0"
#: Never told to a client: they stop a start, or a peer on the wire.
INWARD = {"protocol", "settings", "bind_failed"}


@pytest.fixture(params=dialect_names())
def dialect(request):
    return load_dialect(request.param)(Settings())


def test_names_are_those_of_the_folder():
    """
    What settings accept is what can be loaded.
    """
    assert {"torchserve", "mms"} <= {*dialect_names()}
    for name in dialect_names():
        assert load_dialect(name).name == name


def test_a_module_without_a_dialect_says_so():
    """
    What lies in the folder by mistake stops a start with its name.
    """
    with pytest.raises(SettingsError, match=r"dialects\.shared is no dialect: it has no DIALECT"):
        load_dialect("shared")


def test_every_error_of_a_dialect_is_promised_somewhere(dialect):
    """
    A row that no operation names would be an undocumented answer.
    """
    named = {*ANYWHERE, *ASTRAY, *GUARDED, *NOWHERE}
    for codes in VERB_ERRORS.values():
        named |= {*codes}

    assert {row.rpartition("/")[2] for row in dialect.problems} == named
    assert {row.partition("/")[0] for row in dialect.problems if "/" in row} <= {*VERB_ERRORS}


def test_every_error_has_a_row_in_every_dialect(dialect):
    """
    Without one it would be told as an internal error.
    """
    codes = {
        code for code, kind in ERRORS.items() if kind.__module__.startswith("stoker.")
    } - INWARD
    without = codes - {*dialect.problems}

    # Of processes, not of requests.
    assert {code for code in without if "frontend" in ERRORS[code].__module__} == set()
    assert {code for code in without if ERRORS[code].__module__ == "stoker.errors"} == set()


@pytest.mark.parametrize("code", COMMON)
def test_what_the_peers_tell_alike_is_told_so(dialect, code):
    """
    Status, type and text; clients match on all three.
    """
    details = {"model": "m", "runtime": "cobol", "workflow": "w", "node": "n", "failures": "f"}

    problem = dialect.problem(from_wire(code, WORDS, details))
    document = dialect.error_document(problem)

    document.pop("failure", None)  # ours
    assert (problem.status, document) == (COMMON[code][0], document_of(*COMMON[code]))


def test_every_row_can_be_told(dialect):
    """
    Whatever details there are or are not, a client gets an answer.
    """
    for row in dialect.problems:
        verb, _, code = row.rpartition("/")
        error = from_wire(code, "The words.", {}) if code in ERRORS else ModelNotFound()

        problem = dialect.problem(error, verb, {"model": "m", "version": None})

        assert 400 <= problem.status <= 599
        assert dialect.error_document(problem)


def test_a_module_in_the_folder_is_a_dialect(tmp_path: Path, monkeypatch, start_frontend):
    """
    A fourth peer is one file: nothing else names it.
    """
    (tmp_path / "pidgin.py").write_text(
        textwrap.dedent(
            """
            from stoker.frontend.dialects.shared.errors import common_problems, error_document
            from stoker.frontend.dialects.shared.shapes import error_schema
            from stoker.frontend.dialect import Dialect
            from stoker.frontend.routes import Fixed, Reply, Route


            class Pidgin(Dialect):
                name = "pidgin"
                title = "Pidgin"
                fixed_head = b"x-pidgin: yes\\r\\n"
                fixed_names = frozenset((b"x-pidgin",))
                problems = common_problems(503)

                def routes(self, role):
                    return (Route(("GET",), "/hello", Fixed(Reply(200, {"hello": role.value}))),)

                def error_document(self, problem):
                    return {"oh": error_document(problem)}

                def error_schema(self, status, kinds):
                    return error_schema(status, kinds)


            DIALECT = Pidgin
            """
        )
    )
    monkeypatch.setattr(
        stoker.frontend.dialects,
        "__path__",
        [*stoker.frontend.dialects.__path__, str(tmp_path)],
    )
    monkeypatch.setattr(
        stoker.frontend.dialects.__spec__,
        "submodule_search_locations",
        [*stoker.frontend.dialects.__path__],
    )
    dialect_names.cache_clear()
    try:
        settings = {"listeners": (f"{FREE} pidgin management", f"{FREE} inference+management")}
        assert [one.dialect for one in listeners_of(Settings(**settings))] == [
            "pidgin",
            "torchserve",
        ]
        running = start_frontend(**settings)

        hello = running.request("pidgin/management", "GET", "/hello")
        lost = running.request("pidgin/management", "GET", "/nowhere")
        elsewhere = running.request("torchserve/management", "GET", "/hello")
    finally:
        dialect_names.cache_clear()

    assert (hello.json, hello.header("x-pidgin")) == ({"hello": "management"}, "yes")
    assert lost.json["oh"]["type"] == "ResourceNotFoundException"
    assert elsewhere.json["type"] == "ResourceNotFoundException"


def test_one_registry_stands_behind_all_listeners(start_frontend, supervisor, record):
    """
    Registered through one, served and described through the other, each in its own words.
    """
    registered = []
    supervisor.verbs["register"] = lambda arguments: (
        registered.append(arguments),
        {"outcome": "registered", "model": "demo", "version": "1.0", "workers": 0},
    )[1]
    supervisor.verbs["describe"] = lambda arguments: {"versions": [record()]}
    supervisor.models["demo"] = lambda job: [job.final(b"made")]
    running = start_frontend(
        listeners=(f"{FREE} mms management", f"{FREE} mms inference", f"{FREE} torchserve")
    )

    answer = running.request("mms/management", "POST", "/models?url=demo.mar")
    predicted = [
        running.request(f"{name}/inference", "POST", "/predictions/demo")
        for name in ("mms", "torchserve")
    ]
    object_shaped = running.request("mms/management", "GET", "/models/demo")
    array_shaped = running.request("torchserve/management", "GET", "/models/demo")

    assert answer.json == {"status": 'Model "demo" registered'}
    assert [one["url"] for one in registered] == ["demo.mar"]
    assert [one.body for one in predicted] == [b"made", b"made"]
    assert object_shaped.json["modelName"] == "demo"
    assert array_shaped.json[0]["modelName"] == "demo"


@pytest.mark.parametrize("role", [*Role])
def test_routes_have_names_that_no_other_row_of_the_path_has(dialect, role):
    """
    OpenAPI documents list a path's methods once.
    """
    seen = set()
    for route in dialect.routes(role):
        key = (route.path, route.methods)
        assert key not in seen
        seen.add(key)
