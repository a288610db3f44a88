"""The command line as settings: ours by name, the peer's by its own names.

Source: contracts/torchserve.md 9.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stoker.errors import SettingsError
from stoker.settings import KNOWN, Known
from stoker.settings.names import unknown_setting

_CONFIG_FLAGS: Final = ("--config", "--ts-config")
#: The peer's flags that are not simply a key with dashes, and what they set.
_PEER_FLAGS: Final = {
    "--dt": "disable_token_authorization",
    "--disable-token-auth": "disable_token_authorization",
    "--ppath": "plugins_path",
}
#: The peer's flags about its own way of starting; nothing is left to do.
_EMPTY_FLAGS: Final = ("--start", "--foreground", "--ncs", "--no-config-snapshots")


def split_flags(argv: Sequence[str]) -> tuple[list[tuple[Known, str, str]], str | None]:
    """Flags in order as (setting, text, flag as written), and the configuration file."""
    by_flag = {known.flag: known for known in KNOWN.values()}
    by_flag.update({flag: KNOWN[name] for flag, name in _PEER_FLAGS.items()})
    found: list[tuple[Known, str, str]] = []
    config: str | None = None
    rest = list(argv)
    while rest:
        flag, has_value, value = rest.pop(0).partition("=")
        if flag in _EMPTY_FLAGS and not has_value:
            continue
        if flag in _CONFIG_FLAGS:
            config = value if has_value else _next_value(flag, rest)
        elif flag == "--models":
            # The peer's flag takes several words; its key of that name is another thing.
            items = [value] if has_value else [_next_value(flag, rest)]
            while rest and not rest[0].startswith("--"):
                items.append(rest.pop(0))
            found.append((KNOWN["load_models"], ",".join(items), flag))
        elif (known := by_flag.get(flag)) is None:
            raise unknown_setting(flag, [*by_flag, *_CONFIG_FLAGS], "command line")
        elif has_value:
            found.append((known, value, flag))
        elif known.kind == "bool":
            is_said = bool(rest) and rest[0].lower() in ("true", "false")
            found.append((known, rest.pop(0) if is_said else "true", flag))
        else:
            found.append((known, _next_value(flag, rest), flag))
    return found, config


def _next_value(flag: str, rest: list[str]) -> str:
    if not rest or rest[0].startswith("--"):
        raise SettingsError(f"{flag} needs a value", setting=flag, source="command line")
    return rest.pop(0)
