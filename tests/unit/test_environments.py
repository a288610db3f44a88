"""Environments of single models: what needs no process."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.archives.archive import ResolvedArchive
from stoker.archives.model_config import ModelConfig
from stoker.archives.obtaining import ArchiveElsewhere
from stoker.supervisor.environments import Environments


def test_a_start_does_not_wait_for_an_installation(tmp_path: Path) -> None:
    """
    What the cache has lost is installed again while other models serve.
    """
    environments = Environments(
        tmp_path, installs=True, environ={}, timeout_s=1.0, should_stop=lambda: False
    )
    archive = ResolvedArchive(
        model="m",
        version="1.0",
        handler="h",
        runtime="python",
        url="m.mar",
        content_hash="0" * 64,
        config=ModelConfig(use_venv=True),
    )

    with pytest.raises(ArchiveElsewhere):
        environments.prepare(archive, may_build=False)

    assert [path.suffix for path in (tmp_path / "environments").iterdir()] == [".lock"]
