"""DJL Serving's flags, file and variables, as settings of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.cli.djl_flags import environment, parse, settings_argv
from stoker.errors import SettingsError
from stoker.settings import Settings
from stoker.settings.load import load


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(words: str = "", **environ: str) -> Settings:
    options, rest = parse(words.split(), "djl-serving")
    return load(settings_argv(options, rest, environ).argv, {})


def notes(words: str = "", **environ: str) -> list[str]:
    options, rest = parse(words.split(), "djl-serving")
    return settings_argv(options, rest, environ).notes


def test_nothing_said_is_what_the_peer_does() -> None:
    """
    12: one port for everything, a queue of 1000, 64 MiB of body.
    """
    found = settings()

    assert found.dialect == "djl"
    assert found.inference_address == found.management_address == "http://127.0.0.1:8080"
    assert (found.job_queue_size, found.max_request_size) == (1000, 64 << 20)
    assert (found.default_startup_timeout, found.enable_metrics_api) == (240, False)
    assert found.load_models == ()


def test_the_file_is_looked_for_where_the_peer_looks(folder: Path) -> None:
    """
    12: `-f`, else conf/config.properties, else config.properties, below the home.
    """
    (folder / "conf").mkdir()
    (folder / "config.properties").write_text("job_queue_size=1\n")
    assert settings().job_queue_size == 1
    (folder / "conf" / "config.properties").write_text("job_queue_size=2\n")
    assert settings().job_queue_size == 2
    (folder / "f.properties").write_text("job_queue_size=3\n")
    assert settings("-f f.properties").job_queue_size == 3
    assert settings(MODEL_SERVER_HOME=str(folder / "conf")).job_queue_size == 2

    with pytest.raises(SettingsError, match="Configuration file not found: none"):
        settings("-f none")


def test_keys_with_other_names_and_units(folder: Path) -> None:
    """
    12, and codes for failed predictions.
    """
    (folder / "config.properties").write_text(
        "batch_size=4\nmax_batch_delay=50\nmax_idle_time=9\nthrottle_error_http_code=429\n"
        "allow_multi_status=true\nload_on_devices=cpu\nnumber_of_netty_threads=2\nplanet=9\n"
    )

    found = settings()

    assert (found.default_batch_size, found.default_batch_delay_s) == (4, 0.05)
    assert (found.max_idle_s, found.number_of_gpu) == (9.0, 0)
    assert (found.throttle_error_http_code, found.allow_multi_status) == (429, True)
    assert "understood but without effect: number_of_netty_threads" in notes()
    assert "unknown and ignored: planet" in notes()


def test_variables_beat_flags_and_flags_the_file(folder: Path) -> None:
    """
    12: "Any env SERVING_<KEY> sets key and wins over file and CLI".
    """
    (folder / "config.properties").write_text("model_store=a\n")

    assert settings("-s b").model_store == folder / "b"
    assert settings("-s b", SERVING_MODEL_STORE="c").model_store == folder / "c"


def test_containers_say_it_their_way() -> None:
    """
    11, SageMaker's variables.
    """
    found = settings(
        SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS="7",
        SAGEMAKER_STARTUP_TIMEOUT="8",
        SAGEMAKER_NUM_MODEL_WORKERS="3",
        SAGEMAKER_MAX_PAYLOAD_IN_MB="2",
    )

    assert (found.default_response_timeout, found.default_startup_timeout) == (7, 8)
    assert (found.default_workers_per_model, found.max_request_size) == (3, 2 << 20)
    with pytest.raises(SettingsError, match="no whole number"):
        settings(SAGEMAKER_MAX_PAYLOAD_IN_MB="many")


def test_models_are_separated_by_commas_or_blanks(folder: Path) -> None:
    """
    9.1.
    """
    (folder / "config.properties").write_text("load_models=a=x.zip [b:v1:Python:*]=y.zip,z.zip\n")

    assert settings().load_models == ("a=x.zip", "[b:v1:Python:*]=y.zip", "z.zip")
    assert settings("-m c=w.zip v.zip").load_models == ("c=w.zip", "v.zip")
    assert settings("-m NONE").load_models == ()


def test_all_is_every_entry_of_the_store_or_the_store_itself(folder: Path) -> None:
    """
    9.1: a folder with a model.py in it is one model.
    """
    store = folder / "my-store"
    (store / "one").mkdir(parents=True)
    (store / "one" / "model.py").touch()
    (store / "empty").mkdir()
    (store / "two.zip").touch()
    (store / ".hidden").touch()
    assert settings("-s my-store").load_models == ("one", "two.zip")

    (store / "model.py").touch()
    assert settings("-s my-store").load_models == ("my_store=.",)


def test_a_store_that_is_not_there_is_said() -> None:
    """
    9.1.
    """
    assert "Model store is not configured." in notes()
    assert "Model store path is not found: none" in notes("-s none")


def test_settings_of_ours_are_the_last_word() -> None:
    """
    Whoever types both means ours.
    """
    assert settings("--job-queue-size 5", SERVING_JOB_QUEUE_SIZE="6").job_queue_size == 5


def test_logs_are_where_the_peer_has_them(folder: Path) -> None:
    """
    12.
    """
    assert environment({})["LOGS_DIRECTORY"] == str(folder / "logs")
    assert environment({"MODEL_SERVER_HOME": "/"})["LOGS_DIRECTORY"] == "/logs"
