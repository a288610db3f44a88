"""Reading a TorchServe installation's settings as TorchServe reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.errors import SettingsError
from stoker.settings.load import load, load_with_origins


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No stray config.properties."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_peers_variables_beat_the_command_line(folder: Path) -> None:
    """
    Environment over command line over file (9.2), once the file allows it.
    """
    environ = {"TS_JOB_QUEUE_SIZE": "9", "STOKER_JOB_QUEUE_SIZE": "8"}
    file = folder / "config.properties"
    flags = ["--job-queue-size", "7"]

    file.write_text("job_queue_size=1\n")
    without = load(flags, environ)
    file.write_text("job_queue_size=1\nenable_envvars_config=true\n")
    allowed = load_with_origins(flags, environ)

    assert without.job_queue_size == 7
    assert allowed.settings.job_queue_size == 9
    assert str(allowed.origins["job_queue_size"]) == "environment TS_JOB_QUEUE_SIZE"


def test_only_the_file_may_open_the_door_for_variables(folder: Path) -> None:
    """
    Otherwise whoever sets one variable sets them all.
    """
    (folder / "config.properties").write_text("job_queue_size=1\n")
    environ = {"TS_ENABLE_ENVVARS_CONFIG": "true", "STOKER_ENABLE_ENVVARS_CONFIG": "true"}

    loaded = load_with_origins(
        ["--enable-envvars-config"], {**environ, "TS_JOB_QUEUE_SIZE": "9", "TS_DEBUG": "true"}
    )

    assert loaded.settings.job_queue_size == 1
    assert (
        "not used: TS_JOB_QUEUE_SIZE, TS_DEBUG; the file does not say enable_envvars_config=true"
        in loaded.notes
    )


@pytest.mark.parametrize(("text", "expected"), [("oip", True), ("true", False), ("", True)])
def test_the_protocol_variable_needs_no_leave_and_has_its_own_word(
    folder: Path, text: str, expected: bool
) -> None:
    """
    Section 2.8: exactly `oip` turns it on, any other text off, none leaves the file's word.
    """
    (folder / "config.properties").write_text("ts_open_inference_protocol=true\n")

    settings = load([], {"TS_OPEN_INFERENCE_PROTOCOL": text})

    assert settings.ts_open_inference_protocol is expected


def test_the_peers_variable_beats_its_flag_for_the_file(folder: Path) -> None:
    """
    TS_CONFIG_FILE > --ts-config (9.2); what is not read is named.
    """
    for name, size in (("a", 1), ("b", 2)):
        (folder / f"{name}.properties").write_text(f"job_queue_size={size}\n")

    loaded = load_with_origins(["--ts-config", "a.properties"], {"TS_CONFIG_FILE": "b.properties"})

    assert loaded.settings.job_queue_size == 2
    assert loaded.notes == (
        "TS_CONFIG_FILE names b.properties, so --ts-config a.properties is not read",
    )
    assert load(["--config", "a.properties"], {"TS_CONFIG_FILE": "b.properties"}).job_queue_size


def test_a_named_file_that_is_not_there_is_the_peers_refusal() -> None:
    """
    Section 9.1: scripts look for this text.
    """
    with pytest.raises(SettingsError) as caught:
        load(["--ts-config", "gone.properties"], {})

    assert caught.value.message == "--ts-config file not found: gone.properties"


def test_lenient_reading_names_what_it_does_not_know(folder: Path) -> None:
    """
    An installation that runs today must start; and the typo in it must be seen.
    """
    (folder / "config.properties").write_text(
        "job_queue_size=3\nteam_cost_center=12\nmax_request_sise=4\n"
        "enable_metrics_api=yes\ndecode_input_request=TRUE\nmetrics_mode=push\n"
    )

    loaded = load_with_origins(["--lenient-config"], {})

    assert loaded.settings.job_queue_size == 3
    assert loaded.settings.enable_metrics_api is False
    assert loaded.settings.decode_input_request is True
    assert loaded.settings.metrics_mode == "log"
    assert (
        "unknown and ignored: team_cost_center (line 2), "
        "max_request_sise (line 3, did you mean max_request_size?)"
    ) in loaded.notes
    assert (
        "config.properties:4: enable_metrics_api='yes' is read as false, as TorchServe does"
        in loaded.notes
    )
    assert any("metrics_mode='push' is read as log" in note for note in loaded.notes)


def test_lenient_reading_still_refuses_what_the_peer_refuses(folder: Path) -> None:
    """
    A number that is none stops the peer too ("Invalid configuration", exit 1).
    """
    (folder / "config.properties").write_text("job_queue_size=many\n")

    with pytest.raises(SettingsError):
        load(["--lenient-config"], {})


def test_a_keys_own_booleans_are_never_guessed(folder: Path) -> None:
    """
    Leniency is for what the peer knows; a switch of ours has no such history.
    """
    (folder / "config.properties").write_text("insecure_management=yes\n")

    with pytest.raises(SettingsError):
        load(["--lenient-config"], {})


def test_the_file_cannot_make_its_own_reading_lenient(folder: Path) -> None:
    """
    How a file is read has to be known before it is read.
    """
    (folder / "config.properties").write_text("lenient_config=true\nnonsense=1\n")

    with pytest.raises(SettingsError, match="nonsense"):
        load([], {})
    assert load([], {"STOKER_LENIENT_CONFIG": "true"})


def test_unix_sockets_need_native_io(folder: Path) -> None:
    """
    The peer's text (1.1), though our sockets would not mind.
    """
    (folder / "config.properties").write_text(
        "use_native_io=false\ninference_address=unix:/tmp/a.sock\n"
    )

    with pytest.raises(SettingsError) as caught:
        load([], {})

    assert caught.value.message == (
        "config.properties:1: unix domain socket requires use_native_io set to true."
    )
