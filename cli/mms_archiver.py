"""`stoker mms-archiver`: Multi Model Server's `model-archiver`, so that scripts need one alias.

What fails is said on standard error and ends with 1, a command line that
cannot be read with 2, as there.

Source: contracts/mms.md 9.6.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stoker.cli.parsers import Subparsers
from stoker.errors import StokerError
from stoker.exit_codes import ExitCode

NAME: Final = "mms-archiver"
_FORMATS: Final = ("default", "tgz", "no-archive")
_RUNTIMES: Final = ("python", "python2", "python3")
_NO_CONVERSION: Final = (
    "--convert is not possible: stoker does not turn ONNX models into MXNet's; "
    "let the handler load the ONNX file as it is."
)
_NO_PYTHON_2: Final = (
    "--runtime python2 is not possible: handlers run on the Python that runs stoker; "
    "say python or python3."
)


def add_parser(commands: Subparsers) -> None:
    """For the list of commands; `main` below reads the command line."""
    commands.add_parser(
        NAME, help="Multi Model Server's model-archiver: make an archive", add_help=False
    )


def parser(program: str) -> argparse.ArgumentParser:
    """The peer's grammar; abbreviations work, as they do there."""
    found = argparse.ArgumentParser(
        prog=program,
        description="Make an archive of a folder, as Multi Model Server's model-archiver does: "
        "the same flags and exit codes, so that `alias model-archiver='stoker mms-archiver'` is "
        "a migration.",
    )
    found.add_argument("--model-name", required=True, metavar="NAME", help="also of the archive")
    found.add_argument(
        "--model-path", required=True, type=Path, metavar="DIR", help="all of it is packed"
    )
    found.add_argument(
        "--handler", required=True, metavar="MODULE[:FUNCTION]", help="where a worker begins"
    )
    found.add_argument("--runtime", default="python", choices=_RUNTIMES, help="[python]")
    found.add_argument(
        "--export-path",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where the archive goes [the working directory]",
    )
    found.add_argument(
        "--archive-format",
        default="default",
        choices=_FORMATS,
        help="NAME.mar, NAME.tar.gz or a folder NAME [default]",
    )
    found.add_argument("-f", "--force", action="store_true", help="replace what is there")
    found.add_argument("-c", "--convert", action="store_true", help="refused: ONNX to MXNet")
    return found


def main(argv: Sequence[str]) -> int:
    """The whole of `stoker mms-archiver ...`; returns the exit code."""
    try:
        options = parser(f"stoker {NAME}").parse_args(argv)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else ExitCode.FAILURE
    for is_asked, refusal in (
        (options.convert, _NO_CONVERSION),
        (options.runtime == "python2", _NO_PYTHON_2),
    ):
        if is_asked:
            print(f"stoker: {refusal}", file=sys.stderr)
            return ExitCode.FAILURE
    # For this command alone, and every command imports this file.
    from stoker.archives.mms_pack import MmsParts, pack_folder

    parts = MmsParts(options.model_name, options.model_path, options.handler, options.runtime)
    try:
        pack_folder(parts, options.export_path, options.archive_format, force=options.force)
    except StokerError as error:
        print(f"stoker: {error.message}", file=sys.stderr)
    except OSError as error:
        print(f"stoker: {error}", file=sys.stderr)
    else:
        return ExitCode.OK
    return ExitCode.FAILURE
