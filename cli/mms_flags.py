"""Multi Model Server's command line, file and variables, and what they are in ours.

Stronger to the right, as there: its file, its flags, MMS_* variables (where the
file says `enable_envvars_config=true`), flags of ours.  Its keys are settings
under the same names, so the file is read as it is.

Source: contracts/mms.md 8.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from stoker.cli import torchserve_flags
from stoker.cli.peer_command import Parsed, Translated, flag, parse_with, read_file
from stoker.errors import SettingsError
from stoker.properties import Property
from stoker.settings.known import KNOWN
from stoker.settings.values import parse_text

CONFIG_VARIABLE: Final = "MMS_CONFIG_FILE"
#: The value of `--mms-config` that is no file.
SAGEMAKER: Final = "sagemaker"
_PREFIX: Final = "MMS_"
#: A key that only this peer reads: TorchServe writes it, too, and never looks.
_NUM_WORKERS: Final = "NUM_WORKERS"
_STARTUP_WORKERS: Final = KNOWN["startup_workers_per_model"]
#: Keys that a variable may set (8, column E).
_VARIABLES: Final = (
    "inference_address",
    "management_address",
    "model_store",
    "load_models",
    "default_workers_per_model",
    "default_response_timeout",
    "default_response_timeout_seconds",
    "unregister_model_timeout",
    "job_queue_size",
    "number_of_gpu",
    "number_of_netty_threads",
    "netty_client_threads",
    "max_request_size",
    "max_response_size",
    "decode_input_request",
    "default_service_handler",
    "preload_model",
    "prefer_direct_buffer",
    "blacklist_env_vars",
    "cors_allowed_origin",
    "cors_allowed_methods",
    "cors_allowed_headers",
    "keystore",
    "keystore_pass",
    "keystore_type",
    "private_key_file",
    "certificate_file",
    "async_logging",
    "debug",
    "model_server_home",
)
#: What SageMaker tells its containers, and the settings that it is about.
_SAGEMAKER_VARIABLES: Final = {
    "SAGEMAKER_MODEL_STORE": "model_store",
    "SAGEMAKER_RESPONSE_TIMEOUT": "default_response_timeout",
    "SAGEMAKER_NUM_MODEL_WORKERS": "default_workers_per_model",
    "SAGEMAKER_HANDLER": "default_service_handler",
    "SAGEMAKER_MAX_REQUEST_SIZE": "max_request_size",
    "SAGEMAKER_MAX_RESPONSE_SIZE": "max_response_size",
}
_PORT: Final = "SAGEMAKER_BIND_TO_PORT"


def parser(program: str) -> argparse.ArgumentParser:
    """The peer's grammar; abbreviations work, as they do there."""
    found = argparse.ArgumentParser(
        prog=program,
        description="Multi Model Server's command line on stoker: the same flags, messages and "
        "exit codes, so that `alias multi-model-server='stoker mms'` is a migration.  Settings "
        "of stoker are taken as flags, too.",
    )
    what = found.add_mutually_exclusive_group(required=False)
    what.add_argument("--start", action="store_true", help="start in the background (the default)")
    what.add_argument("--stop", action="store_true", help="stop what was started from here")
    found.add_argument(
        "--mms-config",
        metavar="FILE",
        help="a config.properties, or `sagemaker` for its containers",
    )
    found.add_argument("--model-store", metavar="DIR", help="folder of archives")
    found.add_argument(
        "--models", nargs="+", metavar="MODEL", help="models to load: [name=]location, or ALL"
    )
    found.add_argument("--log-config", metavar="FILE", help="a log4j2 file; its level is taken")
    found.add_argument("--foreground", action="store_true", help="stay attached")
    return found


def parse(argv: Sequence[str], program: str) -> Parsed:
    """Raises SystemExit: See `parse_with`."""
    return parse_with(parser(program), argv)


def settings_argv(
    options: argparse.Namespace, rest: Sequence[str], environ: Mapping[str, str]
) -> Translated:
    """Flags for `stoker serve`.

    Raises:
        SettingsError: The file is not there, or cannot be read; a variable is missing;
            NUM_WORKERS is no number of workers.
    """
    argv = ["--dialect", "mms", "--lenient-config", "true"]
    notes: list[str] = []
    named = environ.get(CONFIG_VARIABLE) or options.mms_config
    if named == SAGEMAKER:
        # No file of ours either.
        argv += ["--config=", *_sagemaker_argv(environ)]
    else:
        argv += ["--config=" if named is None else f"--config={_file(named, environ)}"]
        if named is None and os.path.isfile("config.properties"):
            argv[-1] = "--config=config.properties"
    for name in ("model_store", "log_config"):
        if (value := getattr(options, name)) is not None:
            argv += [flag(name), value]
    if options.models:
        argv += ["--models", *options.models]
    entries = _entries(argv, environ)
    if found := entries.get(_NUM_WORKERS):
        count = parse_text(_STARTUP_WORKERS, found.value, f"{_NUM_WORKERS} (line {found.line})")
        argv += [_STARTUP_WORKERS.flag, str(count)]
    said = [name for name in _VARIABLES if environ.get(_variable(name))]
    switch = entries.get("enable_envvars_config")
    if said and switch is not None and switch.value.strip().lower() == "true":
        argv += [word for name in said for word in (flag(name), environ[_variable(name)])]
    elif said:
        names = ", ".join(_variable(name) for name in said)
        notes.append(f"not used: {names}; the file does not say enable_envvars_config=true")
    return Translated([*argv, *rest], notes)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the peer puts things, as TorchServe does; TorchServe's own variables do not count."""
    ours = {name: value for name, value in environ.items() if not name.startswith("TS_")}
    return torchserve_flags.environment(ours)


def _file(named: str, environ: Mapping[str, str]) -> str:
    if not os.path.isfile(named):
        source = CONFIG_VARIABLE if environ.get(CONFIG_VARIABLE) else "--mms-config"
        raise SettingsError(f"{source} file not found: {named}", source=source)
    return named


def _entries(argv: Sequence[str], environ: Mapping[str, str]) -> dict[str, Property]:
    """What its file says, by key; of a key that is there twice, the later."""
    path = next(word for word in argv if word.startswith("--config=")).removeprefix("--config=")
    if not path:
        return {}
    try:
        return {entry.key: entry for entry in read_file(Path(path), environ)}
    except SettingsError as error:
        where = f"{path}:{error.details['line']}"
        raise SettingsError(f"{where}: {error.message}", source=where) from None


def _sagemaker_argv(environ: Mapping[str, str]) -> list[str]:
    """The peer's built-in profile: one port for everything, which only SageMaker reaches."""
    port = environ.get(_PORT)
    if not port:
        raise SettingsError(f"Invalid Environment Variable {_PORT}", source=SAGEMAKER)
    address = f"http://0.0.0.0:{port}"
    is_multi = environ.get("SAGEMAKER_MULTI_MODE", "").lower() == "true"
    argv = [
        *("--inference-address", address, "--management-address", address),
        *("--insecure-management", "true", "--decode-input-request", "false"),
        *("--sagemaker", "multi" if is_multi else "single"),
    ]
    for variable, name in _SAGEMAKER_VARIABLES.items():
        if value := environ.get(variable):
            argv += [flag(name), value]
    return argv


def _variable(name: str) -> str:
    return _PREFIX + name.upper()
