"""The README of the running statistics: its curl lines, in their order, against a live server."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from readme_lines import assert_alike, curl_lines, run

pytestmark = pytest.mark.slow


def test_the_readmes_lines_answer_as_shown(checkout: Path, tmp_path: Path) -> None:
    """
    Each answer tells what the lines before it have left in the worker.
    """
    from local_server import LocalServer

    folder = checkout / "examples" / "running_statistics"
    _pack_module(folder / "pack.py").pack_into(tmp_path)
    lines = curl_lines((folder / "README.md").read_text(encoding="utf-8"))
    assert len(lines) == 5

    with LocalServer(model_store=tmp_path) as server:
        for line in lines:
            status, body = run(line.command, server)
            assert 200 <= status < 300, body
            assert line.answer is not None
            assert_alike(json.loads(line.answer), json.loads(body))


def _pack_module(path: Path) -> Any:
    """Other examples have a `pack` as well."""
    spec = importlib.util.spec_from_file_location("pack_running_statistics", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
