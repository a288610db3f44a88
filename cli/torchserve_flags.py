"""TorchServe's command line: its flags, and what they are in ours.

Source: contracts/torchserve.md 9.1.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from stoker.cli.peer_command import Parsed, parse_with
from stoker.errors import SettingsError

#: A runtime folder below a longer one leaves no room for the names of sockets.
_MAX_TEMP_BYTES: Final = 60
_VALUED: Final = (
    ("ts_config", "--ts-config"),
    ("model_store", "--model-store"),
    ("workflow_store", "--workflow-store"),
    ("log_config", "--log-config"),
    ("cpp_log_config", "--cpp-log-config"),
    ("plugins_path", "--plugins-path"),
)
_SWITCHES: Final = (
    ("no_config_snapshots", "--no-config-snapshots"),
    ("disable_token_auth", "--disable-token-auth"),
    ("enable_model_api", "--enable-model-api"),
)


def parser(program: str) -> argparse.ArgumentParser:
    """The peer's grammar; abbreviations work, as they do there."""
    found = argparse.ArgumentParser(
        prog=program,
        description="TorchServe's command line on stoker: the same flags, messages and exit "
        "codes, so that `alias torchserve='stoker torchserve'` is a migration.  Settings of "
        "stoker are taken as flags, too.",
    )
    what = found.add_mutually_exclusive_group(required=False)
    what.add_argument("-v", "--version", action="store_true", help="print the version spoken")
    what.add_argument("--start", action="store_true", help="start in the background (the default)")
    what.add_argument("--stop", action="store_true", help="stop what was started from here")
    found.add_argument("--ts-config", metavar="FILE", help="a config.properties")
    found.add_argument("--model-store", metavar="DIR", help="folder of archives")
    found.add_argument("--workflow-store", metavar="DIR", help="folder of workflow archives")
    found.add_argument(
        "--models", nargs="+", metavar="MODEL", help="models to load: [name=]location, or all"
    )
    found.add_argument("--log-config", metavar="FILE", help="a log4j2 file; its level is taken")
    found.add_argument("--cpp-log-config", metavar="FILE", help="accepted, without effect")
    found.add_argument("--foreground", action="store_true", help="stay attached")
    found.add_argument(
        "--no-config-snapshots", "--ncs", action="store_true", help="neither write nor restore any"
    )
    found.add_argument(
        "--plugins-path", "--ppath", metavar="PATH", help="accepted, without effect: no Java"
    )
    found.add_argument(
        "--disable-token-auth", "--dt", action="store_true", help="do not ask callers for tokens"
    )
    found.add_argument(
        "--enable-model-api", action="store_true", help="allow registering and unregistering"
    )
    return found


def parse(argv: Sequence[str], program: str) -> Parsed:
    """Raises SystemExit: See `parse_with`."""
    return parse_with(parser(program), argv)


def settings_argv(options: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    """The flags for `stoker serve`, which reads a file and writes snapshots as the peer does."""
    argv = ["--lenient-config", "true", "--config-snapshots", "true"]
    for name, flag in _VALUED:
        if (value := getattr(options, name)) is not None:
            argv += [flag, value]
    argv += [flag for name, flag in _SWITCHES if getattr(options, name)]
    if options.models:
        argv += ["--models", *options.models]
    return [*argv, *rest]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the peer puts things, as defaults of our folders: settings still win.

    Logs go where LOG_LOCATION says, else to `logs` in the working directory;
    unpacked archives to TEMP if that is set.  What a server remembers lies
    beside its logs, so that two of them in two folders do not share it.  With
    TMPDIR the sockets go there too, as the pid file does.
    """
    found = dict(environ)
    where = environ.get("LOG_LOCATION", "")
    if where or os.access(".", os.W_OK):
        logs = Path(where or "logs").absolute()
        found.setdefault("LOGS_DIRECTORY", str(logs))
        found.setdefault("STATE_DIRECTORY", str(logs / "state"))
    if temp := environ.get("TEMP"):
        found.setdefault("CACHE_DIRECTORY", str(_folder_of_ours(Path(temp).absolute(), "cache")))
    if environ.get("TMPDIR"):
        temporary = Path(tempfile.gettempdir()).absolute()
        if len(os.fsencode(temporary)) <= _MAX_TEMP_BYTES:
            found.setdefault("RUNTIME_DIRECTORY", str(temporary / f"stoker-{os.geteuid()}"))
    return found


def _folder_of_ours(parent: Path, name: str) -> Path:
    """A closed folder in one that others may write to.

    Raises:
        SettingsError: Somebody else made it first.
    """
    folder = parent / f"stoker-{os.geteuid()}-{name}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise SettingsError(f"TEMP {parent} cannot be used: {error.strerror}") from None
    if status.st_uid != os.geteuid() or folder.is_symlink() or not folder.is_dir():
        raise SettingsError(f"TEMP: {folder} is not a folder of ours")
    folder.chmod(0o700)
    return folder
