"""Names that are not settings, and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

from stoker.errors import SettingsError


def nearest_name(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)), None)


def unknown_setting(name: str, names: Iterable[str], source: str) -> SettingsError:
    near = nearest_name(name, names)
    hint = f"did you mean {near}?" if near else "`stoker config` lists all of them."
    return SettingsError(f"{source}: {name} is not a setting; {hint}", setting=name, source=source)
