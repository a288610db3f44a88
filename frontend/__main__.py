"""`python -P -m stoker.frontend`: bind the listeners, then serve them under gunicorn.

Sockets are bound before gunicorn starts, so a taken address is one clear line
and one exit code.  The processes that serve are forked without the application
loaded; each builds its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from stoker.pickle_fence import raise_fence

if __name__ == "__main__":
    raise_fence()

from gunicorn.app.base import BaseApplication
from setproctitle import setproctitle

from stoker.errors import SettingsError
from stoker.exit_codes import ExitCode
from stoker.frontend.app import Frontend
from stoker.frontend.dialects import load_dialect
from stoker.frontend.endpoints import Endpoint, load_endpoints
from stoker.frontend.error_rates import clear_mark
from stoker.frontend.gunicorn_log import GunicornLog
from stoker.frontend.keyring import Keyring, KeysBusy, open_keyring
from stoker.frontend.limits import Limits
from stoker.frontend.listeners import (
    BACKLOG,
    BindFailed,
    Listener,
    Role,
    addresses_by_role,
    open_socket,
    plan_listeners,
)
from stoker.frontend.master import Master, end_with_master
from stoker.frontend.results import remove_results
from stoker.frontend.serving import FrontendWorker
from stoker.frontend.tls import TlsMaterial, read_material
from stoker.heap import keep_what_is_freed, let_go_of_files, share_what_exists
from stoker.logs import configure, get_logger
from stoker.notify import Notifier
from stoker.settings import Settings
from stoker.settings.load import Loaded, load_with_origins
from stoker.wire.arena_folder import arena_folder, remove_arenas
from stoker.wire.job_ids import new_frontend_id
from stoker.wire.link import Link
from stoker.wire.runtime_dir import prepare_folder

TITLE: Final = "stoker: frontend"
#: Where tools and tests read the ports that the kernel chose.
ADDRESSES_FILE: Final = "addresses.json"
#: A process whose loop has not turned for so long is replaced by gunicorn.
STUCK_S: Final = 30
#: Between our own end of draining and gunicorn's SIGKILL.
_GRACE_S: Final = 5
_PROCESSORS_PER_PROCESS: Final = 4

log = get_logger("frontend")


class FrontendApplication(BaseApplication):  # type: ignore[misc]
    """gunicorn, told everything by us and nothing by its own files or variables."""

    def __init__(
        self,
        settings: Settings,
        listeners: Sequence[Listener],
        sockets: Sequence[socket.socket],
        notifier: Notifier,
        keyring: Keyring | None,
        tls: TlsMaterial | None,
        endpoints: Sequence[Endpoint],
    ) -> None:
        self._endpoints = endpoints
        self._settings = settings
        self._listeners = listeners
        self._sockets = sockets
        self._notifier = notifier
        self._keyring = keyring
        self._tls = tls
        self._arenas = arena_folder(settings.runtime_dir)
        self._frontend_id = b""
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        wanted: dict[str, Any] = {
            "bind": [f"fd://{bound.fileno()}" for bound in self._sockets],
            "workers": count_processes(settings.frontend_processes),
            "worker_class": FrontendWorker,
            "logger_class": GunicornLog,
            "timeout": STUCK_S,
            "graceful_timeout": round(settings.drain_timeout_s) + _GRACE_S,
            "backlog": BACKLOG,
            "worker_tmp_dir": str(settings.runtime_dir),
            "control_socket_disable": True,
            "pre_fork": _prepare_fork,
            "post_fork": self._begin_process,
            "child_exit": self._clear_after,
            # A hook of the master's: what follows `run` is reached by every
            # process that was forked, too.
            "on_exit": self._clear,
            "on_reload": self._renew_tls,
        }
        for name, value in wanted.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        Master(self, self._notifier).run()

    def load(self) -> Frontend:
        """Runs in every process that serves, after the fork."""
        settings = self._settings
        link = Link(
            settings.runtime_dir,
            max_pending=settings.max_inflight_requests,
            frontend_id=self._frontend_id,
        )
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        limits = Limits.from_settings(
            settings,
            count_processes(settings.frontend_processes),
            None if files == resource.RLIM_INFINITY else files,
        )
        return Frontend(
            settings,
            self._listeners,
            link,
            limits,
            on_welcome=self._announce,
            keyring=self._keyring,
            tls=self._tls,
            endpoints=self._endpoints,
        )

    def _announce(self) -> None:
        # The listeners are open and the supervisor has answered: only now is
        # a request sure to find somebody.
        self._notifier.ready("serving")
        log.info("serving", pid=os.getpid())

    def _begin_process(self, arbiter: Any, worker: Any) -> None:
        end_with_master(worker.ppid)
        setproctitle(f"{TITLE} {worker.age}")
        self._frontend_id = worker.frontend_id

    def _clear_after(self, arbiter: Any, worker: Any) -> None:
        """However it ended: killed, it could not clear up itself."""
        remove_arenas(self._arenas, worker.frontend_id)

    def _renew_tls(self, arbiter: Any) -> None:
        """After SIGHUP, before new processes take over from the old ones."""
        if self._tls is None:
            return
        try:
            self._tls = read_material(self._settings)
        except SettingsError as error:
            log.error("certificates were not renewed; the old ones stay", error=error.message)
        else:
            log.info("certificates read again")

    def _clear(self, arbiter: Any) -> None:
        remove_addresses(self._settings.runtime_dir)
        if self._keyring is not None:
            self._keyring.hide(self._settings.runtime_dir)
        remove_arenas(self._arenas)
        remove_results(self._settings.runtime_dir)
        clear_mark(self._settings.runtime_dir)


def _prepare_fork(arbiter: Any, worker: Any) -> None:
    setproctitle(TITLE)
    # The master must know it, to clear up after the process.
    worker.frontend_id = new_frontend_id()
    worker.end = arbiter.end


def count_processes(wanted: int) -> int:
    """0 means one per four processors: more of them lost on small machines."""
    return wanted or max(1, (os.cpu_count() or 1) // _PROCESSORS_PER_PROCESS)


def bind_all(listeners: Sequence[Listener], unix_mode: int) -> list[socket.socket]:
    """All or nothing.  Raises BindFailed."""
    sockets: list[socket.socket] = []
    try:
        for listener in listeners:
            sockets.append(open_socket(listener.address, unix_mode))
    except BindFailed:
        for bound in sockets:
            bound.close()
        raise
    for bound in sockets:
        bound.set_inheritable(True)
    return sockets


def write_addresses(folder: Path, addresses: Mapping[str, str]) -> None:
    """Whole or not at all: readers may look at any moment."""
    written = folder / f".{ADDRESSES_FILE}.{os.getpid()}"
    written.write_text(json.dumps(addresses, indent=2) + "\n")
    written.replace(folder / ADDRESSES_FILE)


def remove_addresses(folder: Path) -> None:
    """Nobody listens there any more, and the next server may get other ports."""
    (folder / ADDRESSES_FILE).unlink(missing_ok=True)


def warn_of_exposure(settings: Settings, listeners: Sequence[Listener]) -> None:
    """What other hosts can reach, and how little stands before it."""
    asks = not settings.disable_token_authorization
    for listener in listeners:
        address = listener.address
        if address.is_local or listener.roles == (Role.METRICS,):
            continue
        if asks and not address.is_tls:
            log.warning("tokens travel in clear text to this listener", address=str(address))
        elif not asks and not (settings.client_ca_file and Role.MANAGEMENT in listener.roles):
            log.warning("other hosts may call this without a token", address=str(address))


def allow_many_connections() -> None:
    """Every connection is a file; take as many as the hard limit grants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def warn_of_bodies_that_never_fit(settings: Settings) -> None:
    share = settings.max_body_memory_bytes // count_processes(settings.frontend_processes)
    if settings.max_request_size > share:
        log.warning(
            "larger bodies than memory allows are refused",
            max_request_size=settings.max_request_size,
            memory_bytes=share,
        )


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    try:
        loaded = load_with_origins(argv, environ)
    except (SettingsError, OSError) as error:
        log.error("invalid configuration", error=str(error))
        return ExitCode.CONFIG
    let_go_of_files()
    return serve(loaded, environ)


def prepare(loaded: Loaded) -> None:
    """Import the dialects that will be spoken; the launcher calls it before it forks us."""
    # What is wrong with a setting `serve` says, where somebody listens.
    with contextlib.suppress(SettingsError):
        for listener in plan_listeners(loaded.settings):
            load_dialect(listener.dialect)


def serve(loaded: Loaded, environ: Mapping[str, str]) -> int:
    """Until stopped; also where the launcher comes in, which has read the settings already."""
    settings = loaded.settings
    setproctitle(TITLE)
    configure(settings, process="frontend")
    try:
        prepare_folder(settings.runtime_dir, may_be_passed=bool(settings.worker_user))
        listeners = plan_listeners(settings)
        # Here, so that the processes to be forked share them.
        for listener in listeners:
            load_dialect(listener.dialect)
        is_tls = any(listener.address.is_tls for listener in listeners)
        tls = read_material(settings) if is_tls else None
        endpoints = load_endpoints(settings.endpoints)
        sockets = bind_all(listeners, int(settings.unix_socket_mode, 8))
        # Only now: a second server that finds the addresses taken must not touch the keys.
        keyring = open_keyring(settings)
    except BindFailed as error:
        log.error(error.message, reason=error.details["reason"])
        return ExitCode.ADDRESS_IN_USE
    except KeysBusy as error:
        log.error(error.message)
        return ExitCode.FAILURE
    except (SettingsError, OSError) as error:
        log.error("invalid configuration", error=str(error))
        return ExitCode.CONFIG
    warn_of_exposure(settings, listeners)
    # Of a life that was killed as a whole.  Not the supervisor's to do: it may
    # start anew while frontends live.
    remove_arenas(arena_folder(settings.runtime_dir))
    remove_results(settings.runtime_dir)
    clear_mark(settings.runtime_dir)
    write_addresses(settings.runtime_dir, addresses_by_role(listeners, sockets))
    allow_many_connections()
    warn_of_bodies_that_never_fit(settings)
    notifier = Notifier(environ)
    share_what_exists()
    keep_what_is_freed()
    # SIGABRT is how a watchdog asks where we hang.
    faulthandler.enable()
    # gunicorn would say READY as soon as it has sockets: too early.
    os.environ.pop("NOTIFY_SOCKET", None)
    FrontendApplication(settings, listeners, sockets, notifier, keyring, tls, endpoints).run()
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], dict(os.environ)))
