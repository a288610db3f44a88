"""`stoker workflow`: try a workflow without a server, or draw one that a server runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stoker.addresses import parse_address
from stoker.cli.parsers import Subparsers
from stoker.cli.pid_file import find_running
from stoker.exit_codes import ExitCode
from stoker.settings.load import load

DEADLINE_S: Final = 60.0


def add_parser(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "workflow",
        help="try a workflow without a server, or draw one that runs",
        description="`run` takes a specification (TorchServe's YAML, DJL Serving's JSON or YAML, "
        "or a .war), loads its nodes in workers of its own, gives the input to them, prints what "
        "the workflow answers, and leaves nothing running.  `draw` asks the running server for the "
        "picture of a workflow, with its queues and workers as they are just now.",
        usage="stoker workflow run SPEC INPUT [--handler FILE] [--extra FILE]... "
        "[--model-store DIR]\n       stoker workflow draw NAME [--output FILE]",
        allow_abbrev=False,
    )
    parser.add_argument("verb", choices=("run", "draw"))
    parser.add_argument("subject", metavar="SPEC|NAME")
    parser.add_argument("input", metavar="INPUT", nargs="?", help="a file, or - for what is typed")
    parser.add_argument("--handler", type=Path, metavar="FILE", help="functions of a YAML for run")
    parser.add_argument(
        "--extra", type=Path, metavar="FILE", action="append", default=[], help="what they import"
    )
    parser.add_argument("--deadline-s", type=float, default=DEADLINE_S, help="of the answer")
    parser.add_argument("--output", metavar="FILE", help="where to write; default standard output")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings_argv: Sequence[str]) -> ExitCode:
    if options.verb == "draw":
        return _draw(options, settings_argv)
    if options.input is None:
        print("stoker: what is the workflow's input?  Name a file, or -", file=sys.stderr)
        return ExitCode.USAGE
    # For this command alone, and every command imports this file.
    from stoker.cli.workflow_trial import Trial, TrialFailed

    given = sys.stdin.buffer.read() if options.input == "-" else Path(options.input).read_bytes()
    settings = load(settings_argv, os.environ)
    trial = Trial(
        Path(options.subject), options.handler, tuple(options.extra), settings.model_store
    )
    try:
        answer = trial.run(given, options.input, options.deadline_s)
    except TrialFailed as error:
        print(f"stoker: {error}", file=sys.stderr)
        return ExitCode.FAILURE
    _write(options.output, answer.body)
    print(
        f"answered with {answer.status} in {answer.took_s * 1000:.1f} ms, "
        f"{answer.nodes} nodes loaded in {answer.loaded_s:.1f} s",
        file=sys.stderr,
    )
    return ExitCode.OK if answer.status < 400 else ExitCode.FAILURE


def _draw(options: argparse.Namespace, settings_argv: Sequence[str]) -> ExitCode:
    from stoker.cli.management import ManagementError, draw_workflow

    settings = load(settings_argv, os.environ)
    running = find_running(settings.runtime_dir)
    where = (running.addresses if running else {}).get("management", settings.management_address)
    try:
        picture = draw_workflow(
            parse_address(where, "management"), settings.runtime_dir, options.subject
        )
    except ManagementError as error:
        print(f"stoker: {where}: {error}", file=sys.stderr)
        return ExitCode.UNAVAILABLE
    _write(options.output, picture)
    return ExitCode.OK


def _write(path: str | None, content: bytes) -> None:
    if path is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        Path(path).write_bytes(content)
