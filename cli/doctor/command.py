"""`stoker doctor PATH`: the command."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from stoker.cli.parsers import Subparsers
from stoker.exit_codes import ExitCode


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "doctor",
        help="tell what of a TorchServe installation will work here",
        description="Read a TorchServe installation (configuration, start scripts, model store, "
        "archives) and tell what will work, what differs and what will not.  Nothing of it is "
        "executed or changed.  Exit code 0: everything works; 1: something differs; 2: something "
        "will not work.",
        usage="stoker doctor PATH [--json] [--SETTING VALUE]...",
        allow_abbrev=False,
    )
    parser.add_argument(
        "path", metavar="PATH", help="its folder, its config.properties, or one archive"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings_argv: Sequence[str]) -> int:
    from stoker import logs
    from stoker.cli.doctor.installation import examine_installation
    from stoker.cli.doctor.table import lines
    from stoker.settings import Settings

    path = Path(options.path)
    if not path.exists():
        print(f"stoker: there is no {path}", file=sys.stderr)
        return ExitCode.USAGE
    # The report says what there is to say; unpacking need not tell its steps.
    logs.configure(Settings(log_level="error"), "doctor")
    report = examine_installation(path, settings_argv, _environment(), _progress)
    if options.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        print("\n".join(lines(report)))
    return report.severity.exit_code


def _environment() -> dict[str, str]:
    """What a start of the installation would see; how this shell's own stoker is set up is not."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STOKER_") and name != "TS_CONFIG_FILE"
    }


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\x1b[K{what} ...", end="\r", file=sys.stderr, flush=True)
