"""Gathering settings: whoever puts a value last wins, and where it came from is kept.

Source: contracts/torchserve.md 9.2; see `load` for the order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from stoker.errors import SettingsError
from stoker.settings.about import Effect
from stoker.settings.flags import CONFIG, PEER_CONFIG, Flags
from stoker.settings.known import KNOWN, Known
from stoker.settings.models_json import read_models
from stoker.settings.names import nearest_name, unknown_setting
from stoker.settings.origins import Origin
from stoker.settings.values import parse_as_peer, parse_text, parse_value

#: Room for a snapshot of ten thousand models.
MAX_FILE_BYTES: Final = 8 * 1024 * 1024
#: Keys that the peer writes into its snapshot files beside the settings.
_SNAPSHOT_KEYS: Final = ("tsConfigFile", "NUM_WORKERS", "version")
#: Variables that are ours and not settings.
_OWN_VARIABLES: Final = ("STOKER_CONFIG", "STOKER_WORKER_TOKEN")


class Gathering:
    """Values so far.

    Args:
        is_lenient: Read properties and TS_ variables as the peer does (`lenient_config`).
    """

    def __init__(self, environ: Mapping[str, str], *, is_lenient: bool) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = dict.fromkeys(KNOWN, Origin("default"))
        self.notes: list[str] = []
        self._unknown: list[str] = []
        self._environ = environ
        self._is_lenient = is_lenient

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
        has_snapshot = any(entry.key == "model_snapshot" for entry in entries)
        for entry in entries:
            if entry.key == "load_models" and has_snapshot:
                self.notes.append(f"{path}:{entry.line}: model_snapshot stands for load_models")
            elif entry.key not in _SNAPSHOT_KEYS:
                self._take_entry(entry.key, entry.value, Origin("file", str(path), entry.line))

    def _take_entry(self, key: str, value: Any, origin: Origin) -> None:
        known = KNOWN.get(key)
        if known is None and self._is_lenient:
            near = nearest_name(key, KNOWN, cutoff=0.8)
            hint = f", did you mean {near}?" if near else ""
            self._unknown.append(f"{key} (line {origin.line}{hint})")
        elif known is None:
            raise unknown_setting(key, KNOWN, str(origin))
        elif self._is_lenient and known.about.is_peer_key and isinstance(value, str):
            read, note = parse_as_peer(known, value, str(origin))
            self.put(known, read, origin)
            self.notes += [note] if note else []
        else:
            self.put(known, parse_value(known, value, str(origin)), origin)

    def take_peer_environment(self, *, is_enabled: bool, may_set_urls: bool) -> None:
        """TS_ variables: only where the file says so, and then before all else (9.2)."""
        unused = []
        for known in KNOWN.values():
            name = known.peer_env
            if name is None or name not in self._environ:
                continue
            if known.name == "ts_open_inference_protocol":
                self._take_protocol_variable(known, name)
            elif not is_enabled:
                unused.append(name)
            elif known.name == "allowed_urls" and not may_set_urls:
                self.notes.append(
                    "TS_ALLOWED_URLS is ignored: the file does not say use_env_allowed_urls=true"
                )
            elif self._is_lenient:
                text, source = self._environ[name], f"environment {name}"
                value, note = parse_as_peer(known, text, source)
                self.put(known, value, Origin("environment", text=name))
                self.notes += [note] if note else []
            else:
                self._take_variable(known, name)
        if unused:
            self.notes.append(
                f"not used: {', '.join(unused)}; the file does not say enable_envvars_config=true"
            )

    def _take_protocol_variable(self, known: Known, name: str) -> None:
        """The one that needs nobody's leave, and has a word of its own (2.8)."""
        if text := self._environ[name]:
            self.put(known, text == "oip", Origin("environment", text=name))

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

    def take_mms_timeout(self) -> None:
        """`default_response_timeout_seconds`, which MMS has beside another one in minutes."""
        name = "default_response_timeout_seconds"
        if self.values.get(name, -1) > 0:
            self.put(KNOWN["default_response_timeout"], self.values[name], self.origins[name])

    def take_log_config(self) -> None:
        """What a log4j2 file says, where nothing of ours says otherwise."""
        path = self.values.get("log_config")
        if path is None:
            return
        from stoker.settings.log4j2 import read_log4j2

        found = read_log4j2(path)
        origin = Origin("file", str(path))
        taken = []
        for name, value in (("log_level", found.level), ("log_format", found.is_json and "json")):
            if value and name not in self.values:
                self.put(KNOWN[name], value, origin)
                taken.append(f"{name}={value}")
        left = [*found.appenders, *(f"logger {name}" for name in found.loggers)]
        self.notes.append(
            f"log_config {path}: {', '.join(taken) or 'nothing'} taken from it"
            + (f"; without effect: {', '.join(left)}" if left else "")
        )

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
        notes += read_models(self.values.get("models", "")).notes
        if self._unknown:
            notes.append(f"unknown and ignored: {', '.join(self._unknown)}")
        return tuple(notes)

    def find_file(self, flags: Flags) -> Path | None:
        """The configuration file that counts; one that was named must be there.

        `--config=` names none: whoever starts us has read another server's.
        """
        if flags.config == "":
            return None
        named = [
            (CONFIG, flags.config),
            ("STOKER_CONFIG", self._environ.get("STOKER_CONFIG")),
            ("TS_CONFIG_FILE", self._environ.get("TS_CONFIG_FILE")),
            (PEER_CONFIG, flags.peer_config),
        ]
        given = [(source, path) for source, path in named if path]
        if not given:
            names = ("config.properties", "stoker.toml")
            return next((Path(name) for name in names if os.path.isfile(name)), None)
        source, path = given[0]
        if not os.path.isfile(path):
            raise SettingsError(f"{source} file not found: {path}", source=source)
        if (PEER_CONFIG, flags.peer_config) in given[1:] and path != flags.peer_config:
            self.notes.append(
                f"{source} names {path}, so {PEER_CONFIG} {flags.peer_config} is not read"
            )
        return Path(path)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}", source=str(path)) from None
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError(f"{path}: larger than {MAX_FILE_BYTES} bytes", source=str(path))
    return content
