"""`stoker status`: is it running, who is who, what does it serve?"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict

from stoker.addresses import parse_address
from stoker.cli.listening import wanted_addresses
from stoker.cli.parsers import Subparsers
from stoker.cli.pid_file import Running, find_running
from stoker.exit_codes import ExitCode
from stoker.settings.load import load


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "status",
        help="show whether it runs, its processes, addresses and models",
        description="Show the server that runs in runtime_dir.  Exit code 0: it serves; "
        "1: it runs but does not serve; 3: it does not run.",
        usage="stoker status [--json] [--config FILE] [--SETTING VALUE]...",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings_argv: Sequence[str]) -> ExitCode:
    # An HTTP client is for this command alone, and every command imports this file.
    from stoker.cli.management import ManagementError, list_models

    settings = load(settings_argv, os.environ)
    running = find_running(settings.runtime_dir)
    # Every dialect lists models alike.
    addresses = running.addresses if running else wanted_addresses(settings)
    where = addresses.get("management", "")
    models: list[str] | None = None
    trouble = ""
    try:
        if not where:
            raise ManagementError("no listener serves the management API")
        models = list_models(parse_address(where, "management"), settings.runtime_dir)
    except ManagementError as error:
        trouble = str(error)
    if options.json:
        document = {
            "running": asdict(running) if running else None,
            "models": models,
            "error": trouble or None,
        }
        print(json.dumps(document, indent=2))
    else:
        _print(running, where, models, trouble, str(settings.runtime_dir))
    return _exit_code(running, models)


def _exit_code(running: Running | None, models: list[str] | None) -> ExitCode:
    if models is not None and (running is None or running.is_ready):
        return ExitCode.OK
    return ExitCode.NOT_RUNNING if running is None else ExitCode.FAILURE


def _print(
    running: Running | None, where: str, models: list[str] | None, trouble: str, folder: str
) -> None:
    if running is not None:
        print(f"stoker is {'running' if running.is_ready else 'running, but not ready'}.")
        print(f"  launcher    pid {running.pid}")
        for role in ("supervisor", "frontend"):
            pid = running.children.get(role)
            print(f"  {role:<10}  {f'pid {pid}' if pid else 'down, being restarted'}")
        is_told = any("/" in name for name in running.addresses)
        for listener, address in running.addresses.items():
            if ("/" in listener) is is_told:
                print(f"  {listener:<10}  {address}")
    elif models is not None:
        print(f"No `stoker serve` in {folder}, but {where} answers (started by systemd?).")
    else:
        print(f"stoker is not running in {folder}.")
        return
    if models is None:
        print(f"  models      unknown: {where or 'the server'} does not answer: {trouble}")
    else:
        print(f"  models      {', '.join(models) if models else 'none'}")
