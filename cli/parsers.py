"""What the parsers of all commands share: the list of settings for their help."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING

from stoker.settings import KNOWN, Effect, Known

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subparsers = object


def settings_help() -> str:
    """Every setting that does something, as the end of a command's help."""
    lines = ["settings (each also as STOKER_<NAME> in the environment and in the file):"]
    lines.append("  --config FILE")
    lines.append(
        "      A config.properties or .toml file; default ./config.properties, ./stoker.toml."
    )
    for known in KNOWN.values():
        if known.about.effect is Effect.NOW:
            lines.append(f"  {known.flag} {_placeholder(known)}".rstrip())
            lines += textwrap.wrap(
                known.about.doc + _default(known),
                90,
                initial_indent=" " * 6,
                subsequent_indent=" " * 6,
            )
    return "\n".join(lines)


def _placeholder(known: Known) -> str:
    if known.about.choices:
        return "{" + ",".join(known.about.choices) + "}"
    kind = known.kind.removesuffix(" | None")
    words = {"bool": "[true|false]", "Path": "PATH", "tuple[str, ...]": "ITEM,..."}
    if kind in words:
        return words[kind]
    units = {"s": "SECONDS", "bytes": "BYTES", "min": "MINUTES", "ms": "MS"}
    return units.get(known.about.unit, "N" if kind in ("int", "float") else "TEXT")


def _default(known: Known) -> str:
    if known.default in (None, "", ()) or known.name.endswith("_dir"):
        return ""
    text = str(known.default).lower() if isinstance(known.default, bool) else known.default
    return f" [{text}]"
