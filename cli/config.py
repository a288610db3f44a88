"""`stoker config`: every effective value and where it came from."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from stoker.cli.parsers import Subparsers
from stoker.exit_codes import ExitCode
from stoker.settings import KNOWN, Known
from stoker.settings.load import Loaded, load_with_origins

_HIDDEN: Final = "********"


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "config",
        help="print every setting's value and where it came from",
        description="Print every setting, its effective value and where it came from.",
        usage="stoker config [--json] [--config FILE] [--SETTING VALUE]...",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings_argv: Sequence[str]) -> ExitCode:
    loaded = load_with_origins(settings_argv, os.environ)
    print(_as_json(loaded) if options.json else _as_table(loaded))
    for note in loaded.notes:
        print(f"note: {note}", file=sys.stderr)
    return ExitCode.OK


def _as_table(loaded: Loaded) -> str:
    rows = [
        (name, _as_text(_visible(known, loaded)), str(loaded.origins[name]), _effect(known))
        for name, known in KNOWN.items()
    ]
    name_width = max(len(row[0]) for row in rows)
    value_width = min(60, max(len(row[1]) for row in rows))
    return "\n".join(
        f"{name:<{name_width}}  {value:<{value_width}}  {origin}{effect}"
        for name, value, origin, effect in rows
    )


def _effect(known: Known) -> str:
    from stoker.settings import Effect

    return "" if known.about.effect is Effect.NOW else f"  ({known.about.effect.value})"


def _as_json(loaded: Loaded) -> str:
    document = {
        "config_file": str(loaded.config_file) if loaded.config_file else None,
        "settings": {
            name: {
                "value": _plain(_visible(known, loaded)),
                "origin": asdict(loaded.origins[name]),
                "effect": known.about.effect.value,
            }
            for name, known in KNOWN.items()
        },
        "notes": list(loaded.notes),
    }
    return json.dumps(document, indent=2)


def _visible(known: Known, loaded: Loaded) -> Any:
    value = getattr(loaded.settings, known.name)
    return _HIDDEN if known.about.is_secret and value else value


def _as_text(value: Any) -> str:
    """As one would write it in a file."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
