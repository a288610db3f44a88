"""Finding the parts of a TorchServe installation below one path.

PATH                    what it may be
a folder                config.properties (or config/, conf/ below it), start scripts,
                        and the model store that these name, or a folder of archives
a .properties file      the configuration; its folder is the installation
an archive              that one alone
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from stoker.archives.startup import StartupModel, name_from_url, startup_names
from stoker.cli.doctor import start_scripts
from stoker.cli.doctor.archive import examine
from stoker.cli.doctor.configuration import Configuration, read_configuration
from stoker.cli.doctor.findings import Finding, Report, Severity
from stoker.errors import SettingsError
from stoker.settings import Settings
from stoker.settings.log4j2 import read_log4j2

_CONFIG_NAMES: Final = (
    "config.properties",
    "config/config.properties",
    "conf/config.properties",
    "configs/config.properties",
)
_LOG_CONFIG_NAMES: Final = ("log4j2.xml", "config/log4j2.xml", "conf/log4j2.xml")
_STORE_NAMES: Final = ("model-store", "model_store", "models", "store", ".")
_ENDINGS: Final = (".mar", ".model", ".tar.gz", ".tgz")


def examine_installation(
    path: Path,
    flags: Sequence[str],
    environ: dict[str, str],
    progress: Callable[[str], None],
) -> Report:
    """Look at everything.

    Args:
        flags: Settings that the person added (`--model-store DIR`).
        progress: Told what is looked at now.
    """
    path = path.absolute()
    report = Report(str(path))
    if path.is_file() and path.name.endswith(_ENDINGS):
        return _examine_one(path, report, progress)
    root = path if path.is_dir() else path.parent
    with contextlib.chdir(root):  # relative paths mean what they meant to the server
        argv = _gather_flags(root, path, report)
        configuration = read_configuration([*argv, *flags], environ)
        report.findings += configuration.findings
        _examine_store(root, configuration, report, progress)
    return report


def _examine_one(path: Path, report: Report, progress: Callable[[str], None]) -> Report:
    progress(path.name)
    model = StartupModel(path.name, None, name_from_url(path.name))
    report.archives.append(examine(model, Settings(model_store=path.parent)))
    return report


def _gather_flags(root: Path, path: Path, report: Report) -> list[str]:
    """The settings that a start here would have: the file, and the flags of the first script."""
    config = path if path.is_file() else _first_file(root, _CONFIG_NAMES)
    log_config = _first_file(root, _LOG_CONFIG_NAMES)
    argv: list[str] = []
    for command in start_scripts.find_commands(root):
        options, findings = start_scripts.judge(command)
        report.findings += findings
        if options is None or argv or options.stop or options.version:
            continue
        report.files["start_command"] = command.where
        argv = _settings_of(options, root)
        report.findings += _lost_files(command, options, root)
        config = _local(options.ts_config, root) or config
        log_config = _local(options.log_config, root) or log_config
    report.files["config"] = None if config is None else str(config)
    report.files["log_config"] = None if log_config is None else str(log_config)
    if config is not None:
        argv += ["--ts-config", str(config)]
    else:
        report.findings.append(Finding(Severity.NOTE, "config.properties", "there is none"))
    if log_config is not None:
        report.findings.append(_log_config(log_config))
    return argv


def _lost_files(
    command: start_scripts.StartCommand, options: argparse.Namespace, root: Path
) -> list[Finding]:
    """What a script names and is not here; it may well be where the script runs."""
    named = {
        "--ts-config": options.ts_config,
        "--log-config": options.log_config,
        "--model-store": options.model_store,
        "--workflow-store": options.workflow_store,
    }
    return [
        Finding(Severity.NOTE, command.where, f"{flag} {text} is not found from here")
        for flag, text in named.items()
        if text and _local(text, root) is None
    ]


def _settings_of(options: argparse.Namespace, root: Path) -> list[str]:
    """Flags of a start script that can be followed from here: no variables, paths that exist."""
    argv: list[str] = []
    for name in ("model_store", "workflow_store"):
        if (folder := _local(getattr(options, name), root)) is not None:
            argv += [f"--{name.replace('_', '-')}", str(folder)]
    for name in ("disable_token_auth", "enable_model_api"):
        argv += [f"--{name.replace('_', '-')}"] if getattr(options, name) else []
    models = [each for each in options.models or () if "$" not in each]
    return [*argv, "--models", *models] if models else argv


def _local(text: str | None, root: Path) -> Path | None:
    if not text or "$" in text:
        return None
    path = root / text
    return path if path.exists() else None


def _first_file(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)


def _log_config(path: Path) -> Finding:
    try:
        found = read_log4j2(path)
    except SettingsError as error:
        return Finding(Severity.FAILS, path.name, error.message)
    taken = [f"log_level={found.level}"] if found.level else []
    taken += ["log_format=json"] if found.is_json else []
    left = [*found.appenders, *(f"logger {name}" for name in found.loggers)]
    return Finding(
        Severity.NOTE,
        path.name,
        f"with --log-config: {', '.join(taken) or 'nothing'} is taken from it"
        + (f"; without effect: {', '.join(left)}" if left else ""),
    )


def _examine_store(
    root: Path, configuration: Configuration, report: Report, progress: Callable[[str], None]
) -> None:
    settings = configuration.settings
    store = settings.model_store
    if store is None or not store.is_dir():
        found = next((root / name for name in _STORE_NAMES if _has_archives(root / name)), None)
        if found is None:
            report.files["model_store"] = None
            return
        store = found.resolve()
        settings = replace(settings, model_store=store)
        report.findings.append(
            Finding(Severity.NOTE, "model_store", f"looked into {store}, where archives lie")
        )
    report.files["model_store"] = str(store)
    is_store_root = store == root
    for model in startup_names(store, ("all",)):
        if is_store_root and not model.url.endswith(_ENDINGS) and not _is_model(store / model.url):
            continue
        progress(model.url)
        report.archives.append(examine(model, settings))


def _has_archives(folder: Path) -> bool:
    try:
        return any(name.endswith(_ENDINGS) for name in os.listdir(folder))
    except OSError:
        return False


def _is_model(folder: Path) -> bool:
    return (folder / "MAR-INF" / "MANIFEST.json").is_file()
