"""MMS's command line, file and variables as settings of ours: contracts/mms.md 8."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.cli.mms_flags import environment, parse, settings_argv
from stoker.errors import SettingsError
from stoker.settings import Settings
from stoker.settings.load import load


def settings_of(*words: str, **environ: str) -> Settings:
    options, rest = parse(words, "stoker mms")
    translated = settings_argv(options, rest, environ)
    return load(translated.argv, environment(environ))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(folder: Path, text: str, name: str = "config.properties") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_without_anything_it_is_mms_on_its_ports():
    """
    8080 for predictions, 8081 for models, in its dialect.
    """
    settings = settings_of()

    assert settings.dialect == "mms"
    assert settings.inference_address == "http://127.0.0.1:8080"
    assert settings.management_address == "http://127.0.0.1:8081"
    assert settings.default_response_timeout == 120


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("inference_address=http://127.0.0.1:9000", "inference_address", "http://127.0.0.1:9000"),
        ("management_address=unix:/tmp/m", "management_address", "unix:/tmp/m"),
        ("load_models=a=x.mar,y.model", "load_models", ("a=x.mar", "y.model")),
        ("load_models=ALL", "load_models", ("ALL",)),
        ("default_workers_per_model=3", "default_workers_per_model", 3),
        # The page's unit, in both spellings (contracts/README.md).
        ("default_response_timeout=60", "default_response_timeout", 60),
        ("default_response_timeout_seconds=90", "default_response_timeout", 90),
        ("default_response_timeout_seconds=-1", "default_response_timeout", 120),
        ("unregister_model_timeout=7", "unregister_model_timeout", 7),
        ("job_queue_size=17", "job_queue_size", 17),
        ("number_of_gpu=0", "number_of_gpu", 0),
        ("max_request_size=1000", "max_request_size", 1000),
        ("max_response_size=2000", "max_response_size", 2000),
        ("decode_input_request=false", "decode_input_request", False),
        ("default_service_handler=h.py:f", "default_service_handler", "h.py:f"),
        ("preload_model=true", "preload_model", True),
        ("blacklist_env_vars=AWS_.*", "blacklist_env_vars", "AWS_.*"),
        ("cors_allowed_origin=*", "cors_allowed_origin", "*"),
        ("keystore_pass=secret", "keystore_pass", "secret"),
        ("metric_time_interval=9", "metric_time_interval", 9),
        ("debug=true", "debug", True),
    ],
)
def test_every_key_of_its_file_means_the_same_here(folder, line, name, value):
    """
    8, the table; `config.properties` of the working directory is found.
    """
    configure(folder, f"{line}\n")

    assert getattr(settings_of(), name) == value


@pytest.mark.parametrize(
    "line",
    [
        "number_of_netty_threads=4",
        "netty_client_threads=4",
        "prefer_direct_buffer=true",
        "async_logging=true",
        "use_native_io=true",
        "io_ratio=50",
        "vmargs=-Xmx4g",
        "plugins_path=/plugins",
        "model_server_home=/opt",
        "NUM_WORKERS=2",
        "enable_env_vars_config=true",
    ],
)
def test_what_means_nothing_here_stops_nobody(folder, line):
    """
    Java's threads, and the misspelt key of its own sample files (17).
    """
    configure(folder, f"{line}\n")

    assert settings_of().dialect == "mms"


def test_num_workers_is_how_many_workers_a_model_of_the_start_gets(folder):
    """
    8: where `default_workers_per_model` says nothing; a registration is not asked with it.
    """
    configure(folder, "NUM_WORKERS=2\n")
    settings = settings_of()

    assert settings.startup_workers_per_model == 2
    assert settings.default_workers_per_model == 0
    assert settings_of("--startup-workers-per-model", "3").startup_workers_per_model == 3


@pytest.mark.parametrize("value", ["many", "-1", "5000"])
def test_num_workers_that_is_no_number_is_refused(folder, value):
    """
    By the name that is written in the file, not by that of our setting alone.
    """
    configure(folder, f"debug=false\nNUM_WORKERS={value}\n")

    with pytest.raises(SettingsError, match=r"NUM_WORKERS \(line 2\)"):
        settings_of()


def test_the_variable_names_the_file_before_the_flag_does(folder):
    """
    8: MMS_CONFIG_FILE, then --mms-config, then the working directory.
    """
    configure(folder, "job_queue_size=1\n")
    flagged = configure(folder, "job_queue_size=2\n", "flag.properties")
    named = configure(folder, "job_queue_size=3\n", "variable.properties")

    assert settings_of().job_queue_size == 1
    assert settings_of("--mms-config", str(flagged)).job_queue_size == 2
    both = settings_of("--mms-config", str(flagged), MMS_CONFIG_FILE=str(named))
    assert both.job_queue_size == 3


@pytest.mark.parametrize(
    ("words", "environ", "said"),
    [
        (["--mms-config", "gone"], {}, "--mms-config file not found: gone"),
        ([], {"MMS_CONFIG_FILE": "gone"}, "MMS_CONFIG_FILE file not found: gone"),
        (
            ["--mms-config", "sagemaker"],
            {},
            "Invalid Environment Variable SAGEMAKER_BIND_TO_PORT",
        ),
    ],
)
def test_what_is_named_must_be_there(words, environ, said):
    """
    The front of the peer goes on without its file; nobody noticed until later.
    """
    with pytest.raises(SettingsError) as refused:
        settings_of(*words, **environ)

    assert refused.value.message == said


def test_variables_beat_all_else_where_the_file_lets_them(folder):
    """
    `enable_envvars_config=true`, and then over file and command line.
    """
    store, other = folder / "store", folder / "other"
    for each in (store, other):
        each.mkdir()
    configure(folder, "job_queue_size=1\nenable_envvars_config=true\n")
    environ = {
        "MMS_JOB_QUEUE_SIZE": "5",
        "MMS_MODEL_STORE": str(other),
        "MMS_DEFAULT_RESPONSE_TIMEOUT_SECONDS": "33",
        "MMS_PRELOAD_MODEL": "true",
        "MMS_ENABLE_MODEL_API": "false",
        "TS_JOB_QUEUE_SIZE": "6",
    }

    settings = settings_of("--model-store", str(store), **environ)

    assert settings.job_queue_size == 5
    assert settings.model_store == other
    assert settings.default_response_timeout == 33
    assert settings.preload_model
    # Not one of the peer's (column E), and TorchServe's are none of ours here.
    assert settings.enable_model_api


def test_variables_are_named_where_the_file_does_not_let_them(folder):
    """
    Otherwise somebody would look for their effect for long.
    """
    configure(folder, "job_queue_size=1\n")
    options, rest = parse([], "stoker mms")
    translated = settings_argv(options, rest, {"MMS_JOB_QUEUE_SIZE": "5"})

    assert load(translated.argv, {}).job_queue_size == 1
    assert translated.notes == [
        "not used: MMS_JOB_QUEUE_SIZE; the file does not say enable_envvars_config=true"
    ]


def test_environment_variables_stand_in_values_of_the_file(folder):
    """
    `$$NAME$$`, and a missing one stops the start (8).
    """
    path = configure(folder, "job_queue_size=$$QUEUE$$\n")

    assert settings_of(QUEUE="12").job_queue_size == 12
    with pytest.raises(SettingsError) as refused:
        settings_of()
    assert refused.value.message == f"{path.name}:1: Invalid Environment Variable QUEUE"


def test_sagemakers_profile_is_one_port_for_everything():
    """
    8: its variables, undecoded bodies, and its own /ping.
    """
    settings = settings_of(
        "--mms-config",
        "sagemaker",
        SAGEMAKER_BIND_TO_PORT="9080",
        SAGEMAKER_NUM_MODEL_WORKERS="2",
        SAGEMAKER_RESPONSE_TIMEOUT="44",
        SAGEMAKER_HANDLER="h.py:f",
        SAGEMAKER_MAX_REQUEST_SIZE="1234",
        SAGEMAKER_MULTI_MODE="true",
    )

    assert settings.inference_address == settings.management_address == "http://0.0.0.0:9080"
    assert settings.default_workers_per_model == 2
    assert settings.default_response_timeout == 44
    assert settings.default_service_handler == "h.py:f"
    assert settings.max_request_size == 1234
    assert not settings.decode_input_request
    assert settings.sagemaker == "multi"


def test_a_setting_of_ours_is_a_flag_too():
    """
    And one that nobody knows ends with the usage.
    """
    assert settings_of("--log-format", "json").log_format == "json"
    with pytest.raises(SystemExit) as ended:
        parse(["--nonsense"], "stoker mms")
    assert ended.value.code == 2
