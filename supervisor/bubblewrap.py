"""bubblewrap: a worker in namespaces of its own, where only what it needs is to be seen.

    /usr /etc (names, certificates, loader)     read only
    the interpreter, its packages, ours         read only
    the model's folder, its own packages        read only
    sandbox_paths                               read only
    runtime_dir/workers, the arenas' folder     read only; connecting needs no more
    /tmp, also as HOME; /dev/shm                its own, in memory, gone with it
    /proc                                       of its own processes
    GPUs                                        for models that use them

Everything else is not there: other models, key_file.json, the state, the
journal, the frontends' socket, logs, configuration, homes.  The worker is the
first process of its pid namespace, so whatever it leaves behind dies with it.

Source: issue "Nothing is lost", promise 11; bwrap(1).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from stoker.key_file import FILE_NAME
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.wire.arena_folder import arena_folder
from stoker.wire.runtime_dir import worker_folder

log = get_logger("supervisor")

PROGRAM: Final = "bwrap"
TEMP: Final = "/tmp"
_PROBE_DEADLINE_S: Final = 20.0
#: Where distributions have links into /usr, or folders.
_ROOTS: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
#: Of /etc: names, certificates, the loader, the clock, drivers.  No passwords, no settings.
_ETC: Final = (
    *("passwd", "group", "nsswitch.conf", "hosts", "host.conf", "hostname", "resolv.conf"),
    *("gai.conf", "services", "protocols", "localtime", "timezone", "os-release"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "ssl", "pki"),
    *("ca-certificates", "ca-certificates.conf", "magic", "mime.types", "fonts"),
    *("OpenCL", "vulkan", "glvnd", "nvidia"),
)
#: In them all the same: keys, which a server that is root could read, and so its workers.
_KEYS: Final = ("/etc/ssl/private", "/etc/pki/tls/private")
#: What is shown of every host.
_SHOWN: Final = ("/usr", *(f"/etc/{name}" for name in _ETC))
_NAMESPACES: Final = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_GPUS: Final = ("nvidia*", "dri", "kfd")
#: What the interpreter of a worker imports of ours.
_OURS: Final = tuple(
    f"stoker{name}" for name in ("", ".archives", ".compat", ".handlers", ".wire", ".worker")
)


class Bubblewrap:
    """What is the same for all sandboxes of this server.

    Args:
        becomes_user: The worker becomes another user before it loads anything.
    """

    def __init__(self, settings: Settings, *, becomes_user: bool = False) -> None:
        self._settings = settings
        self._becomes_user = becomes_user
        self._program: str | None = None
        #: With a network, and without: making one takes a right more.
        self._why_not: dict[bool, str] = {}
        self._variants: dict[bool, tuple[str, ...]] = {}
        self._visible: list[str] = []
        secrets = (
            settings.key_file or Path.cwd() / FILE_NAME,
            settings.private_key_file,
            settings.keystore,
        )
        self._secrets = [path.absolute() for path in secrets if path is not None]
        folders = (
            *(settings.state_dir, settings.cache_dir, settings.log_dir, settings.runtime_dir),
            *(settings.model_store, settings.workflow_store),
        )
        self._hidden = [path.absolute() for path in folders if path is not None]

    def why_not(self, *, has_network: bool) -> str:
        """Why it cannot be had here; "" where it can.  Tried once, with a process of its own."""
        if has_network not in self._why_not:
            self._why_not[has_network] = self._try(has_network=has_network)
        return self._why_not[has_network]

    def wrapper(
        self,
        env: Mapping[str, str],
        cwd: str | None,
        *,
        shown: Iterable[str] = (),
        python: str = "",
        has_network: bool = True,
        has_gpus: bool = False,
    ) -> tuple[str, ...]:
        """What stands before a worker's command line.

        Args:
            env: The worker's; what PYTHONPATH names is shown.
            cwd: Its folder, which is shown as well; None for the temporary one.
            shown: Its model's other folders.
            python: An interpreter of its own.
        """
        settings = self._settings
        own = [*shown, *([cwd] if cwd else [])]
        asked = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
        asked = [path for path in asked if path not in own and not self._gives_away(path)]
        asked += settings.sandbox_paths
        visible = [*self._visible, *asked, *(_python_places(python) if python else ())]
        return (
            *self._namespaces(has_network=has_network),
            *_system(for_others=self._becomes_user),
            *_bind(_outermost(visible)),
            *self._masks(visible),
            *_bind(_outermost(own)),
            *_bind([str(worker_folder(settings.runtime_dir).absolute())]),
            *_bind([str(arena_folder(settings.runtime_dir))]),
            *(_gpus() if has_gpus else ()),
            *("--remount-ro", "/", "--chdir", cwd or TEMP),
        )

    # -- below: the parts ---------------------------------------------------------------

    def _namespaces(self, *, has_network: bool) -> tuple[str, ...]:
        assert self._program is not None
        return (
            self._program,
            *self._variants[has_network],
            *_NAMESPACES,
            *(() if has_network else ("--unshare-net",)),
            # Its pid is the worker's then, and nobody stands between the two.
            *("--as-pid-1", "--new-session", "--cap-drop", "ALL"),
            # Given up by the worker itself, with the rest, when it has become that user.
            *(("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID") if self._becomes_user else ()),
        )

    def _masks(self, visible: Sequence[str]) -> list[str]:
        """Folders of ours that happen to lie in something that is shown."""
        found: list[str] = []
        for folder in self._hidden:
            if folder.is_dir() and any(_holds(path, folder) for path in (*_SHOWN, *visible)):
                found += ("--tmpfs", str(folder))
        return found

    def _gives_away(self, path: str) -> bool:
        """A file cannot be masked for long: whoever replaces it takes the mask away.

        Nor can a folder that is not there yet.
        """
        for secret in (*self._secrets, *(path for path in self._hidden if not path.is_dir())):
            if _holds(path, secret):
                log.warning("not shown to a sandbox", path=path, because=f"{secret} is in it")
                return True
        return False

    def _try(self, *, has_network: bool) -> str:
        self._program = shutil.which(PROGRAM)
        if self._program is None:
            return "bwrap is not installed"
        self._visible = _python_places(sys.executable)
        for path in (*_SHOWN, *self._visible, *self._settings.sandbox_paths):
            for secret in self._secrets:
                if any(_holds(keys, secret) for keys in _KEYS):
                    continue
                if _holds(path, secret):
                    return f"{secret} lies in {path}, which workers must see"
        reason = ""
        # Root needs no user namespace, unless it is root of a container.
        is_plain_root = os.geteuid() == 0
        variants: list[tuple[str, ...]] = [()]
        if is_plain_root and not self._becomes_user:
            variants.append(("--unshare-user",))
        for variant in variants:
            self._variants[has_network] = variant
            reason = self._run(has_network=has_network)
            if not reason:
                return ""
        return reason

    def _run(self, *, has_network: bool) -> str:
        """A whole sandbox, with our interpreter in it.  Returns what is wrong with it."""
        command = (
            *self._namespaces(has_network=has_network),
            *_system(for_others=self._becomes_user),
            *_bind(_outermost([*self._visible, *self._settings.sandbox_paths])),
            *("--remount-ro", "/", "--chdir", TEMP),
            *("--", sys.executable, "-P", "-c", "import stoker.worker"),
        )
        try:
            found = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PROBE_DEADLINE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        lines = found.stderr.strip().splitlines()
        if found.returncode:
            return lines[-1] if lines else f"bwrap ended with {found.returncode}"
        return ""


def _system(*, for_others: bool) -> tuple[str, ...]:
    """What every sandbox has; its temporary folders are for whoever runs in it."""
    mode = ("--perms", "1777") if for_others else ()
    parts: list[str] = ["--ro-bind", "/usr", "/usr"]
    for name in _ROOTS:
        path = Path("/", name)
        if path.is_symlink():
            parts += ("--symlink", os.readlink(path), str(path))
        elif path.is_dir():
            parts += ("--ro-bind", str(path), str(path))
    for name in _ETC:
        parts += ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
    for folder in filter(os.path.isdir, _KEYS):
        parts += ("--tmpfs", folder)
    parts += ("--proc", "/proc", "--dev", "/dev", "--ro-bind-try", "/sys", "/sys")
    parts += (*mode, "--tmpfs", TEMP, *mode, "--tmpfs", "/dev/shm", "--symlink", TEMP, "/var/tmp")
    return tuple(parts)


def _gpus() -> list[str]:
    parts: list[str] = []
    for pattern in _GPUS:
        for path in sorted(map(str, Path("/dev").glob(pattern))):
            parts += ("--dev-bind-try", path, path)
    return [*parts, "--ro-bind-try", "/opt/rocm", "/opt/rocm"]


def _python_places(python: str) -> list[str]:
    """What an interpreter of ours reads: itself, the standard library, packages, stoker."""
    places = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sys.path}
    for name in _OURS:
        spec = importlib.util.find_spec(name)
        places.update(spec.submodule_search_locations or () if spec is not None else ())
    # A venv's folder is two above its interpreter.
    places.add(os.path.dirname(os.path.dirname(python)))
    places |= {os.path.realpath(place) for place in places}
    return sorted(place for place in places if os.path.isabs(place) and os.path.exists(place))


def _holds(path: str, other: Path) -> bool:
    """Is `other` what `path` names, or in it, by either's real name?"""
    real, real_other = Path(os.path.realpath(path)), Path(os.path.realpath(other))
    return Path(path) in (other, *other.parents) or real in (real_other, *real_other.parents)


def _outermost(paths: Iterable[str]) -> list[str]:
    """Without those that lie in others, and without what the system's part shows."""
    found: list[str] = []
    for path in sorted({os.path.normpath(path) for path in paths}):
        if path == "/" or _is_in(path, ["/usr", *found]) or not os.path.exists(path):
            continue
        found.append(path)
    return found


def _is_in(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _bind(paths: Iterable[str]) -> list[str]:
    """On the way there, folders for everybody: bwrap would close them as it finds them closed."""
    parts: list[str] = []
    for path in paths:
        parts += ("--dir", os.path.dirname(path), "--ro-bind", path, path)
    return parts
