"""How settings come to be: defaults < file < environment < flags.

The file is `--config FILE` (or the peer's `--ts-config`), else STOKER_CONFIG
or TS_CONFIG_FILE, else `config.properties` or `stoker.toml` in the working
directory.  Whatever is unknown or bad refuses the start and says where it
stands.  Source: contracts/torchserve.md 9.1-9.3; the order of environment and
flags is ours.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stoker.errors import SettingsError
from stoker.settings import KNOWN, Effect, Known, Settings
from stoker.settings.checks import check_together
from stoker.settings.flags import split_flags
from stoker.settings.names import nearest_name, unknown_setting
from stoker.settings.origins import Origin
from stoker.settings.values import parse_text, parse_value

MAX_FILE_BYTES: Final = 1024 * 1024
#: Keys that the peer writes into its snapshot files beside the settings.
_SNAPSHOT_KEYS: Final = ("tsConfigFile", "NUM_WORKERS", "version")
#: Variables that are ours and not settings.
_OWN_VARIABLES: Final = ("STOKER_CONFIG", "STOKER_WORKER_TOKEN")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each value came from, and what a person should be told."""

    settings: Settings
    origins: Mapping[str, Origin]
    notes: tuple[str, ...]
    config_file: Path | None


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings for these flags and this environment, or SettingsError."""
    return load_with_origins(argv, environ).settings


def load_with_origins(argv: Sequence[str], environ: Mapping[str, str]) -> Loaded:
    """As `load`, and where every value came from."""
    gathering = _Gathering(environ)
    flags, config_flag = split_flags(argv)
    config_file = _find_file(config_flag, environ)
    if config_file is not None:
        gathering.take_file(config_file)
    gathering.take_peer_environment()
    gathering.take_environment()
    for known, text, shown in flags:
        gathering.put(known, parse_text(known, text, shown), Origin("flag", text=shown))
    gathering.derive_folders()
    settings = Settings(**gathering.values)
    check_together(settings, gathering.origins)
    return Loaded(settings, gathering.origins, gathering.all_notes(), config_file)


class _Gathering:
    """Values so far; whoever puts last wins."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = dict.fromkeys(KNOWN, Origin("default"))
        self.notes: list[str] = []
        self._environ = environ

    def put(self, known: Known, value: Any, origin: Origin) -> None:
        self.values[known.name] = value
        self.origins[known.name] = origin

    def take_file(self, path: Path) -> None:
        content = _read(path)
        if path.suffix.lower() == ".toml":
            from stoker.settings.toml import read_toml

            for key, value, line in read_toml(content, str(path)):
                self._take_entry(key, value, Origin("file", str(path), line))
            return
        from stoker.properties import read_properties

        try:
            entries = read_properties(content, self._environ)
        except SettingsError as error:
            where = f"{path}:{error.details['line']}"
            raise SettingsError(f"{where}: {error.message}", source=where) from None
        for entry in entries:
            if entry.key not in _SNAPSHOT_KEYS:
                self._take_entry(entry.key, entry.value, Origin("file", str(path), entry.line))

    def _take_entry(self, key: str, value: Any, origin: Origin) -> None:
        known = KNOWN.get(key)
        if known is None:
            raise unknown_setting(key, KNOWN, str(origin))
        self.put(known, parse_value(known, value, str(origin)), origin)

    def take_peer_environment(self) -> None:
        """TS_ variables count only where the file says so (9.2)."""
        if not self.values.get("enable_envvars_config"):
            return
        for known in KNOWN.values():
            name = known.peer_env
            if name is None or name not in self._environ:
                continue
            if known.name == "allowed_urls" and not self.values.get("use_env_allowed_urls"):
                self.notes.append(
                    "TS_ALLOWED_URLS is ignored: the file does not say use_env_allowed_urls=true"
                )
                continue
            self._take_variable(known, name)

    def take_environment(self) -> None:
        names = {known.env: known for known in KNOWN.values()}
        for name in sorted(self._environ):
            if not name.startswith("STOKER_") or name in _OWN_VARIABLES:
                continue
            if name in names:
                self._take_variable(names[name], name)
            elif near := nearest_name(name, names, cutoff=0.85):
                raise SettingsError(
                    f"environment: {name} is not a setting; did you mean {near}?",
                    setting=name,
                    source="environment",
                )
            else:
                # Kubernetes invents such names for a service called stoker.
                self.notes.append(f"environment variable {name} is not a setting and is ignored")

    def _take_variable(self, known: Known, name: str) -> None:
        value = parse_text(known, self._environ[name], f"environment {name}")
        self.put(known, value, Origin("environment", text=name))

    def derive_folders(self) -> None:
        """Folders follow systemd's variables, then the desktop's, then the user's home."""
        env = self._environ
        home = Path(env.get("HOME") or f"/tmp/stoker-{os.getuid()}")
        session = env.get("XDG_RUNTIME_DIR")
        fallback = Path(session) / "stoker" if session else Path(f"/tmp/stoker-{os.getuid()}")
        choices = {
            "runtime_dir": ("RUNTIME_DIRECTORY", fallback),
            "state_dir": (
                "STATE_DIRECTORY",
                Path(env.get("XDG_STATE_HOME") or home / ".local/state") / "stoker",
            ),
            "cache_dir": (
                "CACHE_DIRECTORY",
                Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "stoker",
            ),
        }
        for name, (variable, otherwise) in choices.items():
            self._derive(name, variable, otherwise)
        self._derive("log_dir", "LOGS_DIRECTORY", Path(self.values["state_dir"]) / "logs")

    def _derive(self, name: str, variable: str, otherwise: Path) -> None:
        if name in self.values:
            return
        # systemd separates several folders with colons; the first is ours.
        named = self._environ.get(variable, "").split(":")[0]
        path = Path(os.path.abspath(named)) if named else otherwise
        self.put(KNOWN[name], path, Origin("derived", text=variable if named else ""))

    def all_notes(self) -> tuple[str, ...]:
        """The notes so far, and the names that were set without effect."""
        notes = list(self.notes)
        for effect in (Effect.NONE, Effect.LATER):
            names = [
                name
                for name, known in KNOWN.items()
                if known.about.effect is effect and name in self.values
            ]
            if names:
                notes.append(f"{effect.value}: {', '.join(names)}")
        return tuple(notes)


def _find_file(config_flag: str | None, environ: Mapping[str, str]) -> Path | None:
    if config_flag is not None:
        if not os.path.isfile(config_flag):
            raise SettingsError(f"--config file not found: {config_flag}", source="flag --config")
        return Path(config_flag)
    for variable in ("STOKER_CONFIG", "TS_CONFIG_FILE"):
        if named := environ.get(variable):
            if not os.path.isfile(named):
                raise SettingsError(f"{variable} file not found: {named}", source=variable)
            return Path(named)
    for name in ("config.properties", "stoker.toml"):
        if os.path.isfile(name):
            return Path(name)
    return None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}", source=str(path)) from None
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError(f"{path}: larger than {MAX_FILE_BYTES} bytes", source=str(path))
    return content


def check_folders(settings: Settings) -> None:
    """Folders that must be there before a server starts (9.1).

    Not part of `load`: a frontend in its own sandbox may not see them, and
    `stoker stop` does not care.
    """
    for name in ("model_store", "workflow_store"):
        folder: Path | None = getattr(settings, name)
        if folder is not None and not folder.is_dir():
            raise SettingsError(f"{KNOWN[name].flag} directory not found: {folder}", setting=name)
