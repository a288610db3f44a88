"""The settings record itself."""

from __future__ import annotations

import dataclasses
import re

import pytest

from stoker.settings import KNOWN, Effect, Settings

# contracts/torchserve.md 9.3, every key.
PEER_KEYS = re.findall(
    r"\w+",
    """
inference_address management_address metrics_address grpc_inference_address
grpc_management_address grpc_inference_port grpc_management_port
grpc_inference_max_connection_age_ms grpc_inference_max_connection_age_grace_ms
grpc_management_max_connection_age_ms grpc_management_max_connection_age_grace_ms
enable_grpc_ssl keystore keystore_pass keystore_type private_key_file certificate_file
model_store workflow_store load_models models default_workers_per_model
default_response_timeout default_startup_timeout unregister_model_timeout job_queue_size
number_of_gpu number_of_netty_threads netty_client_threads max_request_size
max_response_size limit_max_image_pixels decode_input_request default_service_handler
service_envelope model_server_home prefer_direct_buffer async_logging use_native_io io_ratio
allowed_urls use_env_allowed_urls install_py_dep_per_model blacklist_env_vars
cors_allowed_origin cors_allowed_methods cors_allowed_headers enable_metrics_api metrics_mode
metrics_config model_metrics_auto_detect disable_system_metrics system_metrics_cmd
metric_time_interval initial_worker_port initial_distribution_port ipex_enable
ipex_gpu_enable cpu_launcher_enable cpu_launcher_args ts_open_inference_protocol
ts_header_key_sequence_id ts_header_key_sequence_start ts_header_key_sequence_end
disable_token_authorization token_expiration_min enable_model_api enable_envvars_config
model_snapshot debug cpp_log_config plugins_path vmargs
""",
)


def test_every_key_of_the_peer_is_known():
    """
    A working config.properties must be readable as it is.
    """
    assert [name for name in PEER_KEYS if name not in KNOWN] == []
    assert all(KNOWN[name].about.is_peer_key for name in PEER_KEYS)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("inference_address", "http://127.0.0.1:8080"),
        ("management_address", "http://127.0.0.1:8081"),
        ("metrics_address", "http://127.0.0.1:8082"),
        ("default_response_timeout", 120),
        ("unregister_model_timeout", 120),
        ("job_queue_size", 100),
        ("max_request_size", 6553500),
        ("max_response_size", 6553500),
        ("initial_worker_port", 9000),
        ("decode_input_request", True),
        ("enable_model_api", True),
        ("allowed_urls", ()),
        ("metrics_mode", "prometheus"),
    ],
)
def test_defaults_are_the_contracts(name, default):
    """
    The peer's, save for the decided conflicts and the stricter ones of section 11.
    """
    assert default == getattr(Settings(), name)


def test_every_setting_explains_itself_in_one_sentence():
    """
    `stoker serve --help` is made of them.
    """
    for known in KNOWN.values():
        assert re.fullmatch(r"\S.*\.", known.about.doc), known.name


def test_the_record_cannot_be_changed():
    """
    Every process reads the same settings from start to end.
    """
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().job_queue_size = 1  # type: ignore[misc]


def test_secrets_are_not_part_of_the_repr():
    """
    A record ends up in logs and tracebacks.
    """
    assert "changeit" not in repr(Settings())


def test_java_only_keys_are_marked_as_without_effect():
    """
    They are accepted, and said to be moot.
    """
    moot = {name for name, known in KNOWN.items() if known.about.effect is Effect.NONE}

    assert {"vmargs", "prefer_direct_buffer", "async_logging", "io_ratio"} <= moot
