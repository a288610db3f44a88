"""`python -P -m stoker.supervisor [flags]`: read settings, run the loop, say how it ended."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
from collections.abc import Mapping, Sequence

from stoker.pickle_fence import raise_fence

if __name__ == "__main__":
    raise_fence()

import setproctitle
import uvloop

from stoker import logs
from stoker.errors import SettingsError
from stoker.exit_codes import ExitCode
from stoker.heap import keep_what_is_freed, let_go_of_files
from stoker.logs import get_logger
from stoker.settings.load import Loaded, load_with_origins
from stoker.settings.summary import summary
from stoker.supervisor.loop import Supervisor
from stoker.wire.runtime_dir import FolderInUse

log = get_logger("supervisor")


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Exit codes: see `stoker.exit_codes`."""
    try:
        loaded = load_with_origins(argv, environ)
    except SettingsError as error:
        sys.stderr.write(f"{error.message}\n")
        return ExitCode.CONFIG
    let_go_of_files()
    return serve(loaded, environ)


def serve(loaded: Loaded, _environ: Mapping[str, str]) -> int:
    """Until stopped; also where the launcher comes in, which has read the settings already."""
    logs.configure(loaded.settings, "supervisor")
    log.info("starting", **summary(loaded))
    for note in loaded.notes:
        log.warning("settings", note=note)
    setproctitle.setproctitle("stoker: supervisor")
    os.umask(0o077)
    # SIGABRT is how a watchdog asks where we hang.
    faulthandler.enable()
    # What was imported lives as long as we do; and a request makes no cycles.
    # No collection: it writes to objects, and so takes copies of what a fork shares.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    keep_what_is_freed()
    try:
        return uvloop.run(Supervisor(loaded.settings).run())
    except FolderInUse as error:
        log.error("cannot start", reason=error.message)
        return ExitCode.ALREADY_RUNNING
    except SettingsError as error:
        log.error("cannot start", reason=error.message)
        return ExitCode.CONFIG
    except OSError as error:
        log.error("cannot start", reason=str(error))
        return ExitCode.SYSTEM


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], dict(os.environ)))
