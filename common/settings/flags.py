"""The command line as settings: ours by name, the peer's by its own names.

Source: contracts/torchserve.md 9.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from stoker.errors import SettingsError
from stoker.settings.known import KNOWN, Known
from stoker.settings.names import unknown_setting

CONFIG: Final = "--config"
PEER_CONFIG: Final = "--ts-config"
#: The peer's flags that are not simply a key with dashes, and what they set.
_PEER_FLAGS: Final = {
    "--dt": "disable_token_authorization",
    "--disable-token-auth": "disable_token_authorization",
    "--ppath": "plugins_path",
}
#: The peer's flags about its own way of starting; nothing is left to do.
_EMPTY_FLAGS: Final = ("--start", "--foreground")
#: The peer's flag for neither writing nor restoring snapshots, and what it sets.
_NO_SNAPSHOT_FLAGS: Final = ("--ncs", "--no-config-snapshots")
_NO_SNAPSHOTS: Final = (("config_snapshots", "false"), ("restore_state", "off"))


@dataclass(slots=True)
class Flags:
    """What a command line says.

    Attributes:
        values: In order, as (setting, text, flag as written).
        config: The file of `--config`.
        peer_config: The file of `--ts-config`, which TS_CONFIG_FILE beats.
    """

    values: list[tuple[Known, str, str]] = field(default_factory=list)
    config: str | None = None
    peer_config: str | None = None


def split_flags(argv: Sequence[str]) -> Flags:
    """Raises SettingsError for a flag that is no setting, or one without its value."""
    by_flag = {known.flag: known for known in KNOWN.values()}
    by_flag.update({flag: KNOWN[name] for flag, name in _PEER_FLAGS.items()})
    found = Flags()
    rest = list(argv)
    while rest:
        flag, has_value, value = rest.pop(0).partition("=")
        if flag in _EMPTY_FLAGS and not has_value:
            continue
        if flag in _NO_SNAPSHOT_FLAGS and not has_value:
            found.values += [(KNOWN[name], text, flag) for name, text in _NO_SNAPSHOTS]
        elif flag == CONFIG:
            found.config = value if has_value else _next_value(flag, rest)
        elif flag == PEER_CONFIG:
            found.peer_config = value if has_value else _next_value(flag, rest)
        elif flag == "--models":
            # The peer's flag takes several words; its key of that name is another thing.
            items = [value] if has_value else [_next_value(flag, rest)]
            while rest and not rest[0].startswith("--"):
                items.append(rest.pop(0))
            found.values.append((KNOWN["load_models"], ",".join(items), flag))
        elif (known := by_flag.get(flag)) is None:
            raise unknown_setting(flag, [*by_flag, CONFIG, PEER_CONFIG], "command line")
        elif has_value:
            found.values.append((known, value, flag))
        elif known.kind == "bool":
            is_said = bool(rest) and rest[0].lower() in ("true", "false")
            found.values.append((known, rest.pop(0) if is_said else "true", flag))
        else:
            found.values.append((known, _next_value(flag, rest), flag))
    return found


def _next_value(flag: str, rest: list[str]) -> str:
    if not rest or rest[0].startswith("--"):
        raise SettingsError(f"{flag} needs a value", setting=flag, source="command line")
    return rest.pop(0)
