"""DJL Serving's command line, config.properties and variables, and what they are in ours.

Stronger to the right: the peer's defaults, its file, its flags, SERVING_*
variables (which beat flags there), flags of ours.

Source: contracts/djl-serving.md 9.1, 11, 12.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from stoker.archives.devices import parse_devices
from stoker.archives.startup import djl_items
from stoker.cli.peer_command import Parsed, Translated, flag, parse_with, read_file
from stoker.errors import InvalidParameter, SettingsError

_PREFIX: Final = "SERVING_"
_ADDRESS: Final = "http://127.0.0.1:8080"
#: What the peer does where nobody says otherwise, as settings of ours.
_DEFAULTS: Final = {
    "dialect": "djl",
    "inference_address": _ADDRESS,
    "management_address": _ADDRESS,
    # `/server/metrics` is on the management listener.
    "enable_metrics_api": "false",
    "job_queue_size": "1000",
    "max_request_size": str(64 << 20),
    "max_response_size": str(64 << 20),
    "default_startup_timeout": "240",
    "install_py_dep_per_model": "true",
}
#: Keys that are settings of ours under the same name.
_SAME: Final = frozenset(
    {
        "inference_address",
        "management_address",
        "model_store",
        "job_queue_size",
        "max_request_size",
        "allow_multi_status",
        "bad_request_http_code",
        "throttle_error_http_code",
        "wlm_error_http_code",
        "server_error_http_code",
        "error_rate_wlm",
        "error_rate_server",
        "error_rate_any",
        "cors_allowed_origin",
        "cors_allowed_methods",
        "cors_allowed_headers",
        "keystore",
        "keystore_pass",
        "keystore_type",
        "private_key_file",
        "certificate_file",
    }
)
#: Keys that have another name here, and how their values read.
_RENAMED: Final[Mapping[str, tuple[str, Callable[[str], str]]]] = {
    "batch_size": ("default_batch_size", str),
    "max_batch_delay": ("default_batch_delay_s", lambda ms: repr(int(ms) / 1000)),
    "max_idle_time": ("max_idle_s", str),
}
#: Understood, and without effect here.
_MOOT: Final = frozenset(
    {
        "wait_model_loading",
        "chunked_read_timeout",
        "plugin_folder",
        "number_of_netty_threads",
        "use_native_io",
        "io_ratio",
        "cluster_address",
        "timeout_http_code",
        "reserved_memory_mb",
        "required_memory_mb",
        "model_url_pattern",
        "request_id_header_key",
        "error_rate_model",
    }
)
#: Variables of SageMaker's containers, and of the Python engine.
_VARIABLES: Final[Mapping[str, tuple[str, Callable[[str], str]]]] = {
    "PREDICT_TIMEOUT": ("default_response_timeout", str),
    "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": ("default_response_timeout", str),
    "MODEL_LOADING_TIMEOUT": ("default_startup_timeout", str),
    "SAGEMAKER_STARTUP_TIMEOUT": ("default_startup_timeout", str),
    "SAGEMAKER_NUM_MODEL_WORKERS": ("default_workers_per_model", str),
    "SERVING_MEMORY_CACHE_CAPACITY": ("async_results_max", str),
    "SAGEMAKER_MAX_REQUEST_SIZE": ("max_request_size", str),
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": ("max_request_size", lambda mb: str(int(mb) << 20)),
}


def parser(program: str) -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog=program,
        description="DJL Serving's command line on stoker: the same flags, file and variables. "
        "Settings of stoker are taken as flags, too.",
        allow_abbrev=False,
    )
    found.add_argument("-f", "--config-file", metavar="FILE", help="a config.properties")
    found.add_argument(
        "-m",
        "--models",
        nargs="+",
        metavar="MODEL",
        help="models to load: [name:version:engine:devices]=location, or ALL, or NONE",
    )
    found.add_argument("-s", "--model-store", metavar="DIR", help="folder of models")
    found.add_argument("-i", "--install", nargs="+", metavar="ENGINE", help="refused: Java engines")
    return found


def parse(argv: Sequence[str], program: str) -> Parsed:
    """Raises SystemExit: See `parse_with`."""
    return parse_with(parser(program), argv)


def settings_argv(
    options: argparse.Namespace, rest: Sequence[str], environ: Mapping[str, str]
) -> Translated:
    """Flags for `stoker serve`.

    Raises:
        SettingsError: The file is not there, or cannot be read.
        OSError: The model store cannot be read.
    """
    said = _file(options.config_file, environ)
    if options.model_store is not None:
        said["model_store"] = options.model_store
    if options.models:
        said["load_models"] = " ".join(options.models)
    for name, value in environ.items():
        if name.startswith(_PREFIX) and name not in _VARIABLES:
            said[name.removeprefix(_PREFIX).lower()] = value
    found = {**_DEFAULTS, **_from_variables(environ)}
    notes = []
    moot = sorted(name for name in said if name in _MOOT)
    if moot:
        notes.append(f"understood but without effect: {', '.join(moot)}")
    for key, value in said.items():
        if key in _SAME:
            found[key] = value
        elif key in _RENAMED:
            name, convert = _RENAMED[key]
            found[name] = _converted(key, value, convert)
        elif key == "load_on_devices":
            found |= _devices(value)
        elif key not in _MOOT and key != "load_models":
            notes.append(f"unknown and ignored: {key}")
    items = _models(said.get("load_models", "ALL"), found.get("model_store"), notes)
    if items:
        found["load_models"] = ",".join(items)
    argv = [word for name, value in found.items() for word in (flag(name), value)]
    # The file has been read: to us it would be one of our own.
    return Translated(["--config=", *argv, *rest], notes)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the peer puts its logs, as a default of ours: `logs` below its home."""
    found = dict(environ)
    home = _home(environ)
    if os.access(home, os.W_OK):
        found.setdefault("LOGS_DIRECTORY", str(home / "logs"))
        found.setdefault("STATE_DIRECTORY", str(home / "logs" / "state"))
    return found


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("MODEL_SERVER_HOME") or ".").absolute()


def _file(named: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The keys of the file that counts: one that is named must be there."""
    if named is not None:
        path: Path | None = Path(named)
    else:
        home = _home(environ)
        places = (home / "conf" / "config.properties", home / "config.properties")
        path = next((place for place in places if place.is_file()), None)
    if path is None:
        return {}
    if not path.is_file():
        raise SettingsError(f"Configuration file not found: {path}", source=str(path))
    return {entry.key: entry.value.strip() for entry in read_file(path, environ)}


def _from_variables(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        setting: _converted(name, environ[name], convert)
        for name, (setting, convert) in _VARIABLES.items()
        if environ.get(name)
    }


def _converted(key: str, value: str, convert: Callable[[str], str]) -> str:
    try:
        return convert(value)
    except ValueError:
        raise SettingsError(f"{key}={value} is no whole number", setting=key) from None


def _devices(value: str) -> dict[str, str]:
    """`load_on_devices` of the server: the CPU alone, or whatever there is."""
    try:
        kind, ids = parse_devices(value)
    except InvalidParameter as error:
        raise SettingsError(
            f"load_on_devices: {error.message}", setting="load_on_devices"
        ) from None
    if kind == "cpu":
        return {"number_of_gpu": "0"}
    if ids:
        raise SettingsError(
            "load_on_devices of the server can be * or cpu; name single GPUs per model, in "
            "serving.properties or in load_models",
            setting="load_on_devices",
        )
    return {}


def _models(said: str, model_store: str | None, notes: list[str]) -> list[str]:
    """Items are separated by commas or blanks; ALL is what lies in the store."""
    items = [item for item in re.split(r"[,\s]+", said) if item]
    if [item.upper() for item in items] not in ([], ["ALL"]):
        return [item for item in items if item.upper() != "NONE"]
    if model_store is None:
        notes.append("Model store is not configured.")
        return []
    store = Path(model_store)
    if not store.is_dir():
        notes.append(f"Model store path is not found: {store}")
        return []
    return djl_items(store)
