"""TorchServe's flags and variables, as settings of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoker.cli.torchserve_flags import environment, parse, settings_argv
from stoker.errors import SettingsError
from stoker.settings.load import load


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_every_flag_becomes_a_setting(folder: Path) -> None:
    """
    What the peer's launcher passes on to Java we pass on to ourselves.
    """
    for name in ("c.properties", "l.xml"):
        (folder / name).write_text("<a/>" if name.endswith("xml") else "job_queue_size=7\n")
    words = "--start --ts-config c.properties --model-store ms --workflow-store ws --dt"
    words += " --log-config l.xml --cpp-log-config x --ppath p --models a=b.mar c.mar"

    options, rest = parse([*words.split(), "--frontend-processes", "2"], "torchserve")
    settings = load(settings_argv(options, rest), {})

    assert settings.job_queue_size == 7
    assert (settings.model_store, settings.workflow_store) == (folder / "ms", folder / "ws")
    assert settings.load_models == ("a=b.mar", "c.mar")
    assert settings.disable_token_authorization
    assert settings.frontend_processes == 2
    assert (settings.plugins_path, settings.cpp_log_config) == ("p", "x")
    assert settings.lenient_config


def test_abbreviations_work_as_they_did() -> None:
    """
    Scripts have them: argparse allows what is unambiguous.
    """
    options, _ = parse(["--model-st", "ms", "--fore"], "torchserve")

    assert (options.model_store, options.foreground) == ("ms", True)


def test_folders_are_where_the_peer_has_them(folder: Path) -> None:
    """
    Logs in the working directory or LOG_LOCATION, archives in TEMP, sockets in TMPDIR.
    """
    (folder / "t").mkdir()
    environ = {"LOG_LOCATION": "elsewhere", "TEMP": str(folder / "t"), "TMPDIR": "/tmp"}

    settings = load([], environment(environ))
    usual = load([], environment({"HOME": str(folder)}))

    assert settings.log_dir == folder / "elsewhere"
    assert settings.state_dir == folder / "elsewhere" / "state"
    assert settings.cache_dir == folder / "t" / f"stoker-{os.geteuid()}-cache"
    assert usual.log_dir == folder / "logs"
    assert usual.cache_dir == folder / ".cache" / "stoker"


def test_settings_of_the_file_beat_the_peers_places(folder: Path) -> None:
    """
    They are defaults: whoever names a folder means it.
    """
    (folder / "config.properties").write_text("log_dir=mine\n")

    assert load([], environment({"LOG_LOCATION": "elsewhere"})).log_dir == folder / "mine"


def test_a_cache_folder_that_somebody_else_made_is_refused(folder: Path) -> None:
    """
    TEMP is often open to all; code would be loaded from there.
    """
    (folder / f"stoker-{os.geteuid()}-cache").symlink_to("/tmp")

    with pytest.raises(SettingsError, match="is not a folder of ours"):
        environment({"TEMP": str(folder)})
