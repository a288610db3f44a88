"""Where a server really listens: port 0 becomes a number only when it is bound."""

from __future__ import annotations

import json
from typing import Final

from stoker.settings import Settings
from stoker.settings.listeners import listener_names, listeners_of

#: Written by the frontend in runtime_dir before it says that it is ready.
ADDRESSES_FILE: Final = "addresses.json"
MAX_FILE_BYTES: Final = 64 * 1024


def wanted_addresses(settings: Settings) -> dict[str, str]:
    """By API, as the settings have them; in several dialects also by `dialect/API`."""
    wanted = listeners_of(settings)
    called = listener_names([(item.dialect, item.apis) for item in wanted])
    return {
        name: str(item.address)
        for item, names in zip(wanted, called, strict=True)
        for name in names
    }


def bound_addresses(settings: Settings) -> dict[str, str]:
    """The same, as a frontend that is ready has bound them."""
    addresses = wanted_addresses(settings)
    try:
        with (settings.runtime_dir / ADDRESSES_FILE).open("rb") as file:
            found = json.loads(file.read(MAX_FILE_BYTES))
    except (OSError, ValueError):
        return addresses
    if isinstance(found, dict):
        addresses.update({name: str(found[name]) for name in addresses if name in found})
    return addresses
