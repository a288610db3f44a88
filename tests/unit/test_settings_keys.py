"""Every key of TorchServe's config.properties (contracts/torchserve.md 9.3): works, or is named.

One row per key: a value as an operator writes it, what it becomes, and whether
it has an effect.  Keys without one are reported at start.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from stoker.settings import KNOWN, Effect
from stoker.settings.load import load_with_origins

WORKS, MOOT, LATER = Effect.NOW, Effect.NONE, Effect.LATER
MODELS: Final = '{"m": {"1.0": {"minWorkers": 1}}}'

#: key: (text, value, effect); a path is relative to the working directory.
KEYS: Final[dict[str, tuple[str, Any, Effect]]] = {
    "inference_address": ("http://127.0.0.1:9080", "http://127.0.0.1:9080", WORKS),
    "management_address": ("unix:/tmp/m.sock", "unix:/tmp/m.sock", WORKS),
    "metrics_address": ("http://localhost:9082", "http://localhost:9082", WORKS),
    "grpc_inference_address": ("127.0.0.1", "127.0.0.1", LATER),
    "grpc_management_address": ("127.0.0.1", "127.0.0.1", LATER),
    "grpc_inference_port": ("7070", 7070, LATER),
    "grpc_management_port": ("7071", 7071, LATER),
    "grpc_inference_max_connection_age_ms": ("5000", 5000, LATER),
    "grpc_inference_max_connection_age_grace_ms": ("500", 500, LATER),
    "grpc_management_max_connection_age_ms": ("5000", 5000, LATER),
    "grpc_management_max_connection_age_grace_ms": ("500", 500, LATER),
    "enable_grpc_ssl": ("true", True, LATER),
    "keystore": ("keystore.p12", Path("keystore.p12"), WORKS),
    "keystore_pass": ("secret", "secret", WORKS),
    "keystore_type": ("PKCS12", "PKCS12", WORKS),
    "private_key_file": ("key.pem", Path("key.pem"), WORKS),
    "certificate_file": ("cert.pem", Path("cert.pem"), WORKS),
    "model_store": ("store", Path("store"), WORKS),
    "workflow_store": ("wf", Path("wf"), WORKS),
    "load_models": ("a.mar, b=c.mar", ("a.mar", "b=c.mar"), WORKS),
    "models": (MODELS, MODELS, WORKS),
    "default_workers_per_model": ("2", 2, WORKS),
    "default_response_timeout": ("60", 60, WORKS),
    "default_startup_timeout": ("90", 90, WORKS),
    "unregister_model_timeout": ("30", 30, WORKS),
    "job_queue_size": ("1000", 1000, WORKS),
    "number_of_gpu": ("1", 1, WORKS),
    "number_of_netty_threads": ("32", 32, MOOT),
    "netty_client_threads": ("8", 8, MOOT),
    "max_request_size": ("65535000", 65_535_000, WORKS),
    "max_response_size": ("65535000", 65_535_000, WORKS),
    "limit_max_image_pixels": ("false", False, WORKS),
    "decode_input_request": ("false", False, WORKS),
    "default_service_handler": ("handler.py:handle", "handler.py:handle", WORKS),
    "service_envelope": ("kserve", "kserve", WORKS),
    "model_server_home": ("/opt/ts", "/opt/ts", MOOT),
    "prefer_direct_buffer": ("true", True, MOOT),
    "async_logging": ("true", True, MOOT),
    "use_native_io": ("true", True, MOOT),
    "io_ratio": ("60", 60, MOOT),
    "allowed_urls": (
        "https://s3.amazonaws.com/.*,file:///m/.*",
        ("https://s3.amazonaws.com/.*", "file:///m/.*"),
        WORKS,
    ),
    "use_env_allowed_urls": ("true", True, WORKS),
    "install_py_dep_per_model": ("true", True, WORKS),
    "blacklist_env_vars": ("AWS_.*|.*_KEY", "AWS_.*|.*_KEY", WORKS),
    "cors_allowed_origin": ("https://example.org", "https://example.org", WORKS),
    "cors_allowed_methods": ("GET, POST, PUT, OPTIONS", "GET, POST, PUT, OPTIONS", WORKS),
    "cors_allowed_headers": ("X-Custom-Header", "X-Custom-Header", WORKS),
    "enable_metrics_api": ("false", False, WORKS),
    "metrics_mode": ("log", "log", WORKS),
    "metrics_config": ("metrics.yaml", Path("metrics.yaml"), WORKS),
    "model_metrics_auto_detect": ("true", True, WORKS),
    "disable_system_metrics": ("true", True, WORKS),
    "system_metrics_cmd": ("collect --gpu 0", "collect --gpu 0", WORKS),
    "metric_time_interval": ("30", 30, WORKS),
    "initial_worker_port": ("9500", 9500, WORKS),
    "initial_distribution_port": ("29600", 29600, WORKS),
    "ipex_enable": ("true", True, WORKS),
    "ipex_gpu_enable": ("true", True, WORKS),
    "cpu_launcher_enable": ("true", True, WORKS),
    "cpu_launcher_args": ("--use_logical_core", "--use_logical_core", WORKS),
    "ts_open_inference_protocol": ("true", True, WORKS),
    "ts_header_key_sequence_id": ("x-seq", "x-seq", WORKS),
    "ts_header_key_sequence_start": ("x-seq-start", "x-seq-start", WORKS),
    "ts_header_key_sequence_end": ("x-seq-end", "x-seq-end", WORKS),
    "disable_token_authorization": ("true", True, WORKS),
    "token_expiration_min": ("30.5", 30.5, WORKS),
    "enable_model_api": ("false", False, WORKS),
    "enable_envvars_config": ("true", True, WORKS),
    "model_snapshot": ("", "", WORKS),
    "debug": ("true", True, WORKS),
    "cpp_log_config": ("cpp.xml", "cpp.xml", MOOT),
    "plugins_path": ("/plugins", "/plugins", MOOT),
    "vmargs": ("-Xmx4g -XX:+UseG1GC", "-Xmx4g -XX:+UseG1GC", MOOT),
}
#: What the peer's environment may not say (column N of the table).
NOT_FROM_THE_ENVIRONMENT: Final = {
    *("models", "use_native_io", "io_ratio", "use_env_allowed_urls", "system_metrics_cmd"),
    *("metric_time_interval", "enable_envvars_config", "model_snapshot", "plugins_path", "vmargs"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def meant(value: Any, folder: Path) -> Any:
    return folder / value if isinstance(value, Path) else value


@pytest.mark.parametrize(("key", "row"), KEYS.items(), ids=KEYS)
def test_a_key_of_the_file_works_or_is_named(
    folder: Path, key: str, row: tuple[str, Any, Effect]
) -> None:
    """
    Accepting a key in silence would look like obeying it.
    """
    text, value, effect = row
    (folder / "config.properties").write_text(f"{key}={text}\n")

    loaded = load_with_origins(["--lenient-config"], {})

    assert getattr(loaded.settings, key) == meant(value, folder)
    assert str(loaded.origins[key]) == "config.properties:1"
    named = [note for note in loaded.notes if key in note]
    assert named == ([] if effect is WORKS else [f"{effect.value}: {key}"])


@pytest.mark.parametrize(
    "key", sorted(KEYS.keys() - {"allowed_urls", "ts_open_inference_protocol"})
)
def test_a_key_is_overridden_by_its_variable_where_the_peer_allows_it(
    folder: Path, key: str
) -> None:
    """
    TS_<KEY>, with the one exception of a name, and ten keys that no variable reaches (9.2).
    """
    text, value, _ = KEYS[key]
    (folder / "config.properties").write_text("enable_envvars_config=true\n")
    variable = {"token_expiration_min": "TS_TOKEN_EXPIRATION_TIME_MIN"}.get(
        key, "TS_" + key.removeprefix("ts_").upper()
    )

    settings = load_with_origins(["--lenient-config"], {variable: text}).settings

    if key in NOT_FROM_THE_ENVIRONMENT:
        assert getattr(settings, key) == (key == "enable_envvars_config" or KNOWN[key].default)
    else:
        assert getattr(settings, key) == meant(value, folder)


def test_the_table_has_every_key() -> None:
    """
    A key that is added to the record needs a row; a row needs a key.
    """
    ours_under_the_peers_name = {"log_config"}

    peers = {name for name, known in KNOWN.items() if known.about.is_peer_key}

    assert peers - ours_under_the_peers_name == set(KEYS)


def test_what_is_in_effect_is_read_by_somebody() -> None:
    """
    A key that nobody reads cannot work, whatever the table says.
    """
    read = set(_attributes_read())

    unread = {
        name for name, known in KNOWN.items() if known.about.effect is WORKS and name not in read
    }

    # These say how settings are read, and are spent with that.
    assert unread == {
        "enable_envvars_config",
        "use_env_allowed_urls",
        "lenient_config",
        "default_response_timeout_seconds",
    }


def _attributes_read() -> Iterator[str]:
    """Attribute names, and texts that may be such names, in all code but the record's own."""
    spec = importlib.util.find_spec("stoker")
    assert spec is not None
    for name in ("frontend", "supervisor", "cli", "wire", "archives", "settings", "logs"):
        found = importlib.util.find_spec(f"stoker.{name}")
        assert found is not None
        assert found.origin is not None
        path = Path(found.origin)
        files = path.parent.rglob("*.py") if path.name == "__init__.py" else [path]
        for file in files:
            if file.name in ("record.py", "models_json.py"):
                continue
            for node in ast.walk(ast.parse(file.read_bytes())):
                if isinstance(node, ast.Attribute):
                    yield node.attr
                elif isinstance(node, ast.JoinedStr):
                    # f"{listener}_address"
                    parts = [p.value for p in node.values if isinstance(p, ast.Constant)]
                    if "_address" in parts:
                        yield from (
                            f"{listener}_address"
                            for listener in ("inference", "management", "metrics")
                        )
