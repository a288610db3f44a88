"""How settings come to be: defaults < file < STOKER_* < flags < TS_*.

TS_* variables count only where the file says `enable_envvars_config=true`, and
then beat everything, as they do for the peer.  The file is `--config FILE`,
else STOKER_CONFIG, else TS_CONFIG_FILE, else `--ts-config FILE`, else
`config.properties` or `stoker.toml` in the working directory.

Whatever is unknown or bad refuses the start and says where it stands; with
`lenient_config` (which `stoker torchserve` sets) an unknown key or an odd
boolean of a properties file is named instead, because the peer goes on.

Source: contracts/torchserve.md 9.1-9.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stoker.errors import SettingsError
from stoker.settings.checks import check_together
from stoker.settings.flags import Flags, split_flags
from stoker.settings.gathering import Gathering
from stoker.settings.known import KNOWN
from stoker.settings.origins import Origin
from stoker.settings.record import Settings
from stoker.settings.values import parse_text


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
    flags = split_flags(argv)
    gathering = Gathering(environ, is_lenient=_is_lenient(flags, environ))
    config_file = gathering.find_file(flags)
    if config_file is not None:
        gathering.take_file(config_file)
    # Of these two the file alone may speak.
    has_peer_variables = gathering.values.get("enable_envvars_config", False)
    may_set_urls = gathering.values.get("use_env_allowed_urls", False)
    gathering.take_environment()
    for known, text, shown in flags.values:
        gathering.put(known, parse_text(known, text, shown), Origin("flag", text=shown))
    gathering.take_peer_environment(is_enabled=has_peer_variables, may_set_urls=may_set_urls)
    gathering.take_mms_timeout()
    gathering.take_log_config()
    gathering.derive_folders()
    settings = Settings(**gathering.values)
    check_together(settings, gathering.origins)
    return Loaded(settings, gathering.origins, gathering.all_notes(), config_file)


def _is_lenient(flags: Flags, environ: Mapping[str, str]) -> bool:
    """Must be known before the file is read, so the file cannot say it."""
    known = KNOWN["lenient_config"]
    text = environ.get(known.env, "false")
    for other, said, _ in flags.values:
        text = said if other is known else text
    return parse_text(known, text, known.flag) is True


def check_folders(settings: Settings) -> None:
    """Folders that must be there before a server starts (9.1).

    Not part of `load`: a frontend in its own sandbox may not see them, and
    `stoker stop` does not care.
    """
    for name in ("model_store", "workflow_store"):
        folder: Path | None = getattr(settings, name)
        if folder is not None and not folder.is_dir():
            raise SettingsError(f"{KNOWN[name].flag} directory not found: {folder}", setting=name)
