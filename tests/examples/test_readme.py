"""Every curl line of README.md, run as it stands against a live server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from readme_lines import BLOCK, CHECKOUT, Line, assert_alike, curl_lines, run

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
LINES = curl_lines(README)


@pytest.fixture(scope="module")
def server(digits_folder: Path) -> Iterator[Any]:
    """What `make run` leaves running, on free ports."""
    from local_server import LocalServer

    with LocalServer(model_store=digits_folder / "model-store") as running:
        running.register(url="digits.mar", batch_size=8, max_batch_delay=10)
        yield running


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=[line.command[:70] for line in LINES])
def test_readme_line_answers_as_shown(line: Line, server: Any) -> None:
    """
    The first thing a newcomer pastes must work, and look like the page.
    """
    status, body = run(line.command, server)

    assert 200 <= status < 300, body
    if line.answer is not None:
        assert_alike(json.loads(line.answer), json.loads(body))


def test_readme_shows_the_handler_that_is_served() -> None:
    """
    The ten lines on the page are the ten lines of the example.
    """
    source = (CHECKOUT / "examples" / "digits" / "handler.py").read_text(encoding="utf-8")

    shown = [text for kind, text in BLOCK.findall(README) if kind == "python"]

    assert shown
    assert shown[0].strip() in source


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """
    Relative links rot silently.
    """
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)

    assert targets
    assert [target for target in targets if not (CHECKOUT / target).exists()] == []


def test_the_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    """
    A renamed target must take the page along.
    """
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")

    named = set(re.findall(r"\bmake ([a-z-]+)", README))

    assert {"run", "test"} <= named
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []
