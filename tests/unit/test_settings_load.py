"""Where settings come from, and what refuses a start."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.errors import SettingsError
from stoker.settings import Settings
from stoker.settings.load import check_folders, load, load_with_origins


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    """No stray config.properties."""
    monkeypatch.chdir(tmp_path)


def refusal(argv=(), environ=None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(list(argv), environ or {})
    return caught.value.message


def test_flags_beat_environment_beats_file_beats_default(tmp_path):
    """
    The order is a promise: whoever is nearer to the person wins.
    """
    file = tmp_path / "c.properties"
    file.write_text("job_queue_size=1\nmax_request_size=11\ndefault_response_timeout=21\n")
    environ = {"STOKER_JOB_QUEUE_SIZE": "2", "STOKER_MAX_REQUEST_SIZE": "12"}

    loaded = load_with_origins(["--config", str(file), "--job-queue-size", "3"], environ)

    settings = loaded.settings
    assert (
        settings.job_queue_size,
        settings.max_request_size,
        settings.default_response_timeout,
        settings.default_startup_timeout,
    ) == (3, 12, 21, 120)
    assert [
        "flag --job-queue-size",
        "environment STOKER_MAX_REQUEST_SIZE",
        f"{file}:3",
        "default",
    ] == [
        str(loaded.origins[name])
        for name in (
            "job_queue_size",
            "max_request_size",
            "default_response_timeout",
            "default_startup_timeout",
        )
    ]


@pytest.mark.parametrize("text", ["job_queue_size = 7\n", "[stoker]\njob_queue_size = 7\n"])
def test_toml_is_read_flat_or_from_its_table(tmp_path, text):
    """
    Both are what people try first.
    """
    (tmp_path / "stoker.toml").write_text(text)

    assert load([], {}).job_queue_size == 7


def test_toml_values_keep_their_types(tmp_path):
    """
    A list is a list, a number a number, and a text is parsed like anywhere else.
    """
    (tmp_path / "stoker.toml").write_text(
        'load_models = ["a.mar", "b=c,d.mar"]\ndrain_timeout_s = 5\nmax_archive_bytes = "2GiB"\n'
        f'enable_model_api = false\nmodel_store = "{tmp_path}"\n'
    )

    settings = load([], {})

    assert settings.load_models == ("a.mar", "b=c,d.mar")
    assert settings.drain_timeout_s == 5.0
    assert isinstance(settings.drain_timeout_s, float)
    assert settings.max_archive_bytes == 2 * 1024**3
    assert settings.enable_model_api is False
    assert tmp_path == settings.model_store


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\njob_queue_siz = 7\n", "stoker.toml:1: x is not a setting"),
        (
            "# hello\n[stoker]\n\njob_queue_siz = 7\n",
            "stoker.toml:4: job_queue_siz is not a setting; did you mean job_queue_size?",
        ),
        (
            "\njob_queue_size = true\n",
            "stoker.toml:2: job_queue_size must be a whole number of at least 1, not 'True'",
        ),
        ("job_queue_size = 1.5\n", "stoker.toml:1: job_queue_size must be a whole number"),
        ("job_queue_size = [1]\n", "stoker.toml:1: job_queue_size must be a whole number"),
        ("load_models = [1]\n", "stoker.toml:1: load_models must be a list of texts"),
        ("job_queue_size = \n", "stoker.toml: not TOML: "),
        ("stoker = 3\n", "stoker.toml: stoker must be a table"),
    ],
)
def test_a_bad_toml_file_names_its_line(tmp_path, text, expected):
    """
    The person who made the mistake should find it at once.
    """
    (tmp_path / "stoker.toml").write_text(text)

    assert refusal().startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# c\njob_queue_sise=3\n",
            "config.properties:2: job_queue_sise is not a setting; did you mean job_queue_size?",
        ),
        (
            "zzz=3\n",
            "config.properties:1: zzz is not a setting; `stoker config` lists all of them.",
        ),
        (
            "job_queue_size=many\n",
            "config.properties:1: job_queue_size must be a whole number of at least 1, not 'many'",
        ),
        (
            "decode_input_request=yes",
            "config.properties:1: decode_input_request must be true or false, not 'yes'",
        ),
        (
            "queue_full_status=500",
            "config.properties:1: queue_full_status must be one of 503, 429, not 500",
        ),
        (
            "metrics_mode=push",
            "config.properties:1: metrics_mode must be one of prometheus, log, legacy, not 'push'",
        ),
        ("blacklist_env_vars=(", "config.properties:1: blacklist_env_vars is not a regular expr"),
        ("allowed_urls=a,[", "config.properties:1: allowed_urls is not a regular expression: '['"),
        ("inference_address=ftp://x", "config.properties:1: Invalid binding address: ftp://x"),
        ("metrics_address=http://x:70000", "config.properties:1: Invalid port number: 70000"),
        ("request_deadline_s=inf", "config.properties:1: request_deadline_s must be a number"),
        ("request_deadline_s=nan", "config.properties:1: request_deadline_s must be a number"),
        ("models={", "config.properties:1: models must be JSON"),
        ("job_queue_size=$$NO$$", "config.properties:1: Invalid Environment Variable NO"),
    ],
)
def test_a_bad_properties_file_names_its_line(tmp_path, text, expected):
    """
    Unknown or bad values refuse the start with file, line and the nearest name.
    """
    (tmp_path / "config.properties").write_text(text)

    assert refusal().startswith(expected)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ["--job-queue-siz", "3"],
            "command line: --job-queue-siz is not a setting; did you mean --job-queue-size?",
        ),
        (["--job-queue-size"], "--job-queue-size needs a value"),
        (["--job-queue-size", "--debug"], "--job-queue-size needs a value"),
        (["3"], "command line: 3 is not a setting"),
        (["--config", "/no/such"], "--config file not found: /no/such"),
        (["--runtime-dir", "/" + "x" * 100], "flag --runtime-dir: runtime_dir is too long"),
        (["--job-queue-size", "9" * 40], "--job-queue-size: job_queue_size must be a whole"),
        (["--model-store", "a\0b"], "--model-store: model_store must be a path"),
    ],
)
def test_bad_flags_refuse(argv, expected):
    """
    A flag that is not understood would be a setting that is not applied.
    """
    assert refusal(argv).startswith(expected)


def test_flags_have_every_usual_form():
    """
    `--key value`, `--key=value`, and bare booleans.
    """
    settings = load(
        [
            *("--job-queue-size=5", "--enable-metrics-api", "false", "--insecure-management"),
            *("--strict-parameters", "--max-archive-bytes", "3 MiB", "--number-of-gpu", "0"),
        ],
        {},
    )

    assert settings.job_queue_size == 5
    assert settings.enable_metrics_api is False
    assert settings.insecure_management is True
    assert settings.strict_parameters is True
    assert settings.max_archive_bytes == 3 * 1024**2
    assert settings.number_of_gpu == 0


def test_the_peers_flags_are_understood(tmp_path):
    """
    A script that calls `torchserve --start ...` needs one word changed.
    """
    file = tmp_path / "ts.properties"
    file.write_text("vmargs=-Xmx4g\n")
    loaded = load_with_origins(
        [
            *("--start", "--ncs", "--foreground", "--ts-config", str(file)),
            *("--models", "a=a.mar", "b.mar", "--dt", "--enable-model-api", "--ppath", "x"),
        ],
        {},
    )

    assert loaded.settings.load_models == ("a=a.mar", "b.mar")
    assert loaded.settings.disable_token_authorization
    assert (loaded.settings.restore_state, loaded.settings.config_snapshots) == ("off", False)
    assert Path(file) == loaded.config_file
    assert loaded.notes[:1] == ("understood but without effect: vmargs, plugins_path",)


def test_the_configuration_file_is_looked_for_in_order(tmp_path):
    """
    A flag, then a variable, then the working directory.
    """
    for name, size in [("a", 1), ("b", 2), ("c", 3), ("config", 4)]:
        (tmp_path / f"{name}.properties").write_text(f"job_queue_size={size}")
    environ = {"STOKER_CONFIG": "b.properties", "TS_CONFIG_FILE": "c.properties"}

    assert load(["--config", "a.properties"], environ).job_queue_size == 1
    assert load([], environ).job_queue_size == 2
    assert load([], {"TS_CONFIG_FILE": "c.properties"}).job_queue_size == 3
    assert load([], {}).job_queue_size == 4


def test_the_peers_variables_need_the_files_permission(tmp_path):
    """
    The peer's rule: enable_envvars_config=true in the file.
    """
    environ = {"TS_JOB_QUEUE_SIZE": "9", "TS_TOKEN_EXPIRATION_TIME_MIN": "5", "TS_IO_RATIO": "7"}
    file = tmp_path / "config.properties"

    file.write_text("job_queue_size=1\n")
    without = load([], environ)
    file.write_text("job_queue_size=1\nenable_envvars_config=true\n")
    allowed = load([], environ)

    assert without.job_queue_size == 1
    assert allowed.job_queue_size == 9
    assert allowed.token_expiration_min == 5.0
    assert allowed.io_ratio == 50  # not overridable by the peer either


def test_allowed_urls_need_a_second_permission(tmp_path):
    """
    The environment must not widen what may be downloaded (section 11).
    """
    environ = {"TS_ALLOWED_URLS": ".*"}
    file = tmp_path / "config.properties"

    file.write_text("enable_envvars_config=true\n")
    loaded = load_with_origins([], environ)
    file.write_text("enable_envvars_config=true\nuse_env_allowed_urls=true\n")

    assert loaded.settings.allowed_urls == ()
    assert "TS_ALLOWED_URLS is ignored" in loaded.notes[0]
    assert load([], environ).allowed_urls == (".*",)


def test_a_misspelt_variable_of_ours_refuses():
    """
    It would otherwise be a setting that silently is not applied.
    """
    assert (
        refusal(environ={"STOKER_JOB_QUEUE_SIZ": "1"})
        == "environment: STOKER_JOB_QUEUE_SIZ is not a setting; did you mean STOKER_JOB_QUEUE_SIZE?"
    )


def test_variables_that_kubernetes_invents_are_only_noted():
    """
    A service called stoker must not stop every container beside it.
    """
    environ = {"STOKER_PORT_8080_TCP": "tcp://10.0.0.1:8080", "STOKER_SERVICE_HOST": "10.0.0.1"}

    notes = load_with_origins([], environ).notes

    assert len(notes) == 2
    assert "STOKER_PORT_8080_TCP" in notes[0]


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--disable-token-authorization"],
        ["--client-ca-file", "/ca.pem"],
        ["--inference-address", "http://0.0.0.0:8081"],
    ],
)
def test_management_for_other_hosts_needs_credentials_or_a_word(flags):
    """
    The way that let strangers run code on the peer's hosts (section 11).
    """
    argv = ["--management-address", "http://0.0.0.0:8081", *flags]

    assert "can be reached from other hosts without credentials" in refusal(argv)
    assert load([*argv, "--insecure-management"], {}).insecure_management


@pytest.mark.parametrize(
    ("address", "flags"),
    [
        ("http://0.0.0.0:8081", ["--disable-token-authorization=false"]),
        ("http://models.example:8081", ["--disable-token-authorization=false"]),
        ("https://[::]:8081", ["--client-ca-file", "/ca.pem"]),
        ("http://127.0.0.2:8081", []),
        ("http://[::1]:8081", []),
        ("unix:/run/management.sock", []),
    ],
)
def test_protected_management_may_be_reached_from_anywhere(address, flags):
    """
    Tokens, client certificates, or nobody outside: each is enough.
    """
    assert load(["--management-address", address, *flags], {}).management_address == address


def test_the_peers_variables_turn_tokens_on(tmp_path):
    """
    Containers are configured so (9.3); the lifetime's variable has a name of its own.
    """
    (tmp_path / "config.properties").write_text("enable_envvars_config=true\n")
    environ = {
        "TS_DISABLE_TOKEN_AUTHORIZATION": "false",
        "TS_TOKEN_EXPIRATION_TIME_MIN": "0.5",
        "TS_ENABLE_MODEL_API": "false",
        "TS_KEYSTORE": "/k.p12",
    }

    settings = load([], environ)

    assert not settings.disable_token_authorization
    assert settings.token_expiration_min == 0.5
    assert not settings.enable_model_api
    assert str(settings.keystore) == "/k.p12"
    assert load(["--disable-token-auth"], {}).disable_token_authorization


def test_an_authority_for_clients_needs_tls_on_the_management_listener():
    """
    Whoever asks for certificates must not get a listener that never sees one.
    """
    assert "client_ca_file needs an https management_address" in refusal(
        ["--client-ca-file", "/ca.pem"]
    )


@pytest.mark.parametrize("half", ["certificate", "private_key"])
def test_https_needs_its_key_and_certificate(half):
    """
    Found at start, not at the first connection; a key store needs neither.
    """
    argv = ["--inference-address", "https://127.0.0.1:8443"]
    one = "--certificate-file" if half == "certificate" else "--private-key-file"

    assert "certificate_file and private_key_file are needed" in refusal([*argv, one, "x"])
    assert load([*argv, one, "x", "--keystore", "k"], {})
    assert load([*argv, "--certificate-file", "c", "--private-key-file", "k"], {})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"HOME": "/h", "XDG_RUNTIME_DIR": "/x"},
            (
                "/x/stoker",
                "/h/.local/state/stoker",
                "/h/.cache/stoker",
                "/h/.local/state/stoker/logs",
            ),
        ),
        (
            {"HOME": "/h", "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/c", "XDG_RUNTIME_DIR": "/x"},
            ("/x/stoker", "/s/stoker", "/c/stoker", "/s/stoker/logs"),
        ),
        (
            {
                "RUNTIME_DIRECTORY": "/run/stoker:/run/other",
                "STATE_DIRECTORY": "/var/lib/stoker",
                "CACHE_DIRECTORY": "/var/cache/stoker",
                "LOGS_DIRECTORY": "/var/log/stoker",
                "HOME": "/h",
            },
            ("/run/stoker", "/var/lib/stoker", "/var/cache/stoker", "/var/log/stoker"),
        ),
        (
            {"HOME": "/h", "XDG_RUNTIME_DIR": "/x", "STOKER_STATE_DIR": "/mine"},
            ("/x/stoker", "/mine", "/h/.cache/stoker", "/mine/logs"),
        ),
    ],
)
def test_folders_follow_systemd_then_the_session_then_home(environ, expected):
    """
    The same command works as a service, in a session and in a container.
    """
    settings = load([], environ)

    assert tuple(map(Path, expected)) == (
        settings.runtime_dir,
        settings.state_dir,
        settings.cache_dir,
        settings.log_dir,
    )


def test_relative_paths_become_absolute(tmp_path):
    """
    The processes that read them may have another working directory.
    """
    assert tmp_path / "models" == load(["--model-store", "models"], {}).model_store


def test_a_missing_model_store_refuses_the_start_with_the_peers_text(tmp_path):
    """
    Contract 9.1.
    """
    with pytest.raises(SettingsError) as caught:
        check_folders(load(["--model-store", "gone"], {}))

    assert f"--model-store directory not found: {tmp_path / 'gone'}" == caught.value.message


def test_keys_of_later_releases_are_named_in_one_note(tmp_path):
    """
    Accepting a key in silence would look like obeying it.
    """
    (tmp_path / "config.properties").write_text("grpc_inference_port=7000\nenable_grpc_ssl=true\n")

    notes = load_with_origins([], {}).notes

    assert notes == ("not yet in effect: grpc_inference_port, enable_grpc_ssl",)


def test_a_snapshot_of_the_peer_is_readable(tmp_path):
    """
    Snapshots carry keys that are not settings.
    """
    (tmp_path / "config.properties").write_text(
        "tsConfigFile=dummy\nNUM_WORKERS=1\nversion=0.12.0\njob_queue_size=3\n"
        'model_snapshot={\\n  "name"\\: "x.cfg"\\n}\n'
    )

    assert load([], {}).job_queue_size == 3


def test_a_snapshot_stands_for_the_load_models_it_was_written_with(tmp_path):
    """
    The peer ignores them, too (9.5): what was unregistered since must not come back.
    """
    (tmp_path / "config.properties").write_text('load_models=all\nmodel_snapshot={"models":{}}\n')

    loaded = load_with_origins([], {})
    named = load_with_origins(["--models", "b.mar"], {})

    assert loaded.settings.load_models == ()
    assert loaded.notes == ("config.properties:1: model_snapshot stands for load_models",)
    assert named.settings.load_models == ("b.mar",)


def test_a_secret_is_never_part_of_a_refusal(tmp_path):
    """
    Refusals end up in logs.
    """
    (tmp_path / "stoker.toml").write_text("keystore_pass = 12345\n")

    assert "12345" not in refusal()


def test_a_huge_file_is_not_read(tmp_path):
    """
    Every input has a limit.
    """
    (tmp_path / "config.properties").write_bytes(b"#" * (8 * 1024 * 1024 + 1))

    assert "larger than" in refusal()


def test_defaults_alone_are_a_working_configuration():
    """
    `stoker serve` with nothing beside it must start.
    """
    loaded = load_with_origins([], {"HOME": "/h", "XDG_RUNTIME_DIR": "/x"})
    changed = {"runtime_dir", "state_dir", "cache_dir", "log_dir"}

    assert {
        name
        for name in Settings.__slots__
        if getattr(loaded.settings, name) != getattr(Settings(), name)
    } == changed
    assert loaded.notes == ()
