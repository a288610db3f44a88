"""Requirements and virtual environments of single models (6.4), without a network."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.archives.pack import Parts, pack

pytestmark = pytest.mark.slow

HANDLER = """
import os, sys
import stoker_test_thing

IS_OWN = sys.prefix != os.environ["SERVER_PREFIX"]

def handle(data, context):
    return [f"{stoker_test_thing.VALUE} {IS_OWN}"] * len(data or [])
"""


def wheel(version: str, value: str) -> bytes:
    """A package of one module, as pip takes it from a file."""
    info = f"stoker_test_thing-{version}.dist-info"
    members = {
        "stoker_test_thing.py": f"VALUE = {value!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: stoker-test-thing\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*members, f"{info}/RECORD"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {**members, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return buffer.getvalue()


@pytest.fixture
def make(model_store: Path, tmp_path: Path) -> Callable[..., str]:
    """Pack a model that needs a wheel of that value; returns its url."""

    def do(model: str, value: str, config: str = "", requirement: str = "") -> str:
        handler, wheels = tmp_path / "needs.py", tmp_path / "wheels"
        handler.write_text(HANDLER)
        file = f"stoker_test_thing-1.{len(value)}-py3-none-any.whl"
        wheels.mkdir(exist_ok=True)
        for old in wheels.iterdir():
            old.unlink()
        (wheels / file).write_bytes(wheel(f"1.{len(value)}", value))
        requirements = tmp_path / "requirements.txt"
        requirements.write_text(requirement or f"./{file}\n")
        config_file = tmp_path / "model-config.yaml"
        config_file.write_text(config)
        parts = Parts(
            model,
            str(handler),
            extra_files=(wheels,),
            requirements_file=requirements,
            config_file=config_file,
        )
        made = pack(parts, tmp_path)
        made.rename(model_store / made.name)
        return made.name

    return do


def register(server: Any, url: str) -> Any:
    return server.manage("POST", "/models", url=url, initial_workers=1, synchronous="true")


def test_two_models_have_what_each_of_them_requires(start_server, make):
    """
    Their versions clash; neither the other nor the server sees them.
    """
    server = start_server("--install-py-dep-per-model", SERVER_PREFIX=sys.prefix)

    first = register(server, make("first", "a"))
    second = register(server, make("second", "bb", "useVenv: true\n"))
    again = (server.manage("DELETE", "/models/first"), register(server, "first.mar"))

    assert first.status == 200, first.text
    assert second.status == 200, second.text
    assert again[1].status == 200
    assert server.predict("first", b"x").text == "a False"
    assert server.predict("second", b"x").text == "bb True"
    assert server.describe("second")["useVenv"] is True
    assert len(server.logged("installing requirements")) == 2, "the first was built once"


def test_requirements_that_cannot_be_installed_refuse_the_model(start_server, make):
    """
    The peer's text (1.6); unlike the peer, nothing stays registered.
    """
    server = start_server("--install-py-dep-per-model", PIP_NO_INDEX="1")

    answer = register(server, make("wrong", "a", requirement="./no-such-file.whl\n"))

    assert answer.status == 400
    assert answer.json["type"] == "ModelException"
    assert answer.json["message"] == "Custom pip package installation failed for model wrong"
    assert server.manage("GET", "/models/wrong").status == 404
    (line,) = server.logged("registration refused")
    assert "no-such-file" in line["why"]


def test_without_the_setting_requirements_are_left_alone(server, make):
    """
    Registering must not run pip unless the operator has said so.
    """
    server.expect_error("load failed")

    answer = register(server, make("unmet", "a"))

    assert answer.status == 500
    (line,) = server.logged("load failed", model="unmet")
    assert "No module named 'stoker_test_thing'" in line["last_line"]
