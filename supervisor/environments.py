"""Python environments of single models: what their archives require, or a venv of their own.

    <cache_dir>/environments/<key>/packages/    pip install -t, without a venv
    <cache_dir>/environments/<key>/venv/        with `useVenv`; sees the server's packages too
    <cache_dir>/environments/<key>/pip.log      what pip had to say
    <cache_dir>/environments/<key>/complete     written last
    <cache_dir>/environments/<key>.lock         held to build and to remove
    <cache_dir>/environments/<key>.use          shared lock of everyone who uses it

The key is made of the archive's content, so an environment is built once, and
a restart needs neither pip nor network.  The peer installs into the unpacked
archive instead, at every registration.

Source: contracts/torchserve.md 6.4.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from stoker.archives.archive import ResolvedArchive
from stoker.archives.locks import LockTimeout, lock, take_lock_nowait
from stoker.archives.obtaining import ArchiveElsewhere
from stoker.archives.readers import let_group_read
from stoker.capabilities import keep_from_programs
from stoker.errors import EnvironmentFailed
from stoker.logs import get_logger

log = get_logger("environments")

#: Environments that nobody uses are kept up to this number, for the next start.
MAX_UNUSED: Final = 8
MAX_REQUIREMENTS_BYTES: Final = 1 << 20
_POLL_S: Final = 0.5
_TAIL_BYTES: Final = 4096


class Environments:
    """Builds and keeps them; called in threads.

    Args:
        installs: `install_py_dep_per_model`.
        environ: What pip runs with: a worker's environment.
        readers: A group that may read them.
    """

    def __init__(
        self,
        cache_dir: Path,
        *,
        installs: bool,
        environ: Mapping[str, str],
        timeout_s: float,
        should_stop: Callable[[], bool],
        readers: int | None = None,
    ) -> None:
        self._readers = readers
        self._root = cache_dir / "environments"
        self._installs = installs
        self._environ = environ
        self._timeout_s = timeout_s
        self._should_stop = should_stop
        self._mutex = threading.Lock()
        #: key -> [uses, the descriptor that holds the shared lock]
        self._uses: dict[str, list[int]] = {}

    def prepare(self, archive: ResolvedArchive, *, may_build: bool = True) -> ResolvedArchive:
        """The archive with the interpreter and packages that its workers need.

        Counts one use; give it back with `release`.

        Raises:
            ArchiveElsewhere: It would have to be built, and `may_build` is false.
            EnvironmentFailed: with the peer's text; `reason` is pip's last line.
        """
        has_venv = archive.config is not None and archive.config.use_venv
        requirements = archive.requirements_file if self._installs else None
        if not has_venv and requirements is None:
            return archive
        key = _key(archive, requirements, has_venv=has_venv)
        folder = self._root / key
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with lock(
                self._root / f"{key}.lock", timeout_s=self._timeout_s, should_stop=self._should_stop
            ):
                if not (folder / "complete").exists():
                    if not may_build:
                        raise ArchiveElsewhere(
                            "What it requires is not here; it must be installed.", url=archive.url
                        )
                    self._build(folder, archive, requirements, has_venv=has_venv)
                if self._readers is not None:
                    let_group_read(folder, self._readers)
                self._count(key)
        except (OSError, LockTimeout) as error:
            raise _failed(archive, has_venv=has_venv, reason=str(error)) from None
        return replace(
            archive,
            environment=key,
            python=str(folder / "venv" / "bin" / "python") if has_venv else "",
            packages_dir=None if has_venv else folder / "packages",
        )

    def release(self, archive: ResolvedArchive) -> None:
        """One use less; what is left over beyond `MAX_UNUSED` is removed."""
        key = archive.environment
        if not key:
            return
        with self._mutex:
            use = self._uses[key]
            use[0] -= 1
            if use[0]:
                return
            del self._uses[key]
            os.close(use[1])
        self._prune()

    # -- building -------------------------------------------------------------

    def _build(
        self,
        folder: Path,
        archive: ResolvedArchive,
        requirements: Path | None,
        *,
        has_venv: bool,
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        began = time.monotonic()
        python = sys.executable
        if has_venv:
            try:
                python = _make_venv(folder / "venv")
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                raise _failed(archive, has_venv=True, reason=str(error)) from None
        if requirements is not None:
            command = [python, "-P", "-m", "pip", "install", "-U"]
            if has_venv:
                command += ["--upgrade-strategy", "only-if-needed"]
            else:
                command += ["-t", str(folder / "packages")]
            self._run_pip([*command, "-r", str(requirements)], folder, archive)
        (folder / "complete").touch()
        log.info(
            "environment built",
            model=archive.model,
            version=archive.version,
            has_venv=has_venv,
            took_s=round(time.monotonic() - began, 1),
        )

    def _run_pip(self, command: list[str], folder: Path, archive: ResolvedArchive) -> None:
        """Requirements may name files beside them, so pip works in the archive's folder."""
        log.info("installing requirements", model=archive.model, version=archive.version)
        output = folder / "pip.log"
        environ = {**self._environ, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        deadline = time.monotonic() + self._timeout_s
        # What it installs may run code of its own; this thread is the archives'.
        keep_from_programs()
        with output.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environ,
                cwd=archive.model_dir,
                start_new_session=True,
            )
        try:
            while (status := _wait(process)) is None:
                if self._should_stop() or time.monotonic() >= deadline:
                    raise _failed(archive, reason="pip did not end in time")
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if status:
            lines = _tail(output)
            log.warning("requirements not installed", model=archive.model, output=lines)
            raise _failed(archive, reason=lines[-1] if lines else f"pip ended with {status}")

    # -- use ------------------------------------------------------------------

    def _count(self, key: str) -> None:
        with self._mutex:
            use = self._uses.get(key)
            if use is not None:
                use[0] += 1
                return
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            handle = os.open(self._root / f"{key}.use", flags, 0o600)
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            self._uses[key] = [1, handle]

    def _prune(self) -> None:
        folders = [path for path in self._root.iterdir() if path.is_dir()]
        unused = [path for path in folders if path.name not in self._uses]
        unused.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for folder in unused[MAX_UNUSED:]:
            build = take_lock_nowait(self._root / f"{folder.name}.lock")
            if build is None:
                continue
            try:
                use = take_lock_nowait(self._root / f"{folder.name}.use")
                if use is not None:  # no other server uses it either
                    shutil.rmtree(folder, ignore_errors=True)
                    (self._root / f"{folder.name}.use").unlink(missing_ok=True)
                    os.close(use)
            finally:
                os.close(build)


def _key(archive: ResolvedArchive, requirements: Path | None, *, has_venv: bool) -> str:
    """Names an environment by everything that decides what is in it."""
    digest = hashlib.sha256()
    text = b""
    if requirements is not None:
        with requirements.open("rb") as file:
            text = file.read(MAX_REQUIREMENTS_BYTES)
    for part in (
        (archive.content_hash or str(archive.model_dir)).encode(),
        text,
        sys.version.encode(),
        sys.prefix.encode(),
        b"venv" if has_venv else b"",
    ):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:32]


def _make_venv(folder: Path) -> str:
    """A venv that also sees what the server has installed, editable packages included."""
    # Only here: few archives want one.
    import venv

    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    (own,) = folder.glob("lib/python*/site-packages")
    paths = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    lines = [f"import site; site.addsitedir({path!r})" for path in paths]
    (own / "stoker-server.pth").write_text("\n".join(lines) + "\n")
    return str(folder / "bin" / "python")


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return None


def _tail(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = file.read(_TAIL_BYTES).decode("utf-8", "replace").splitlines()
    return [line.strip() for line in lines if line.strip()][-10:]


def _failed(archive: ResolvedArchive, *, has_venv: bool = False, reason: str) -> EnvironmentFailed:
    what = "Virtual environment creation" if has_venv else "Custom pip package installation"
    return EnvironmentFailed(
        f"{what} failed for model {archive.model}",
        url=archive.url,
        model=archive.model,
        reason=reason[:500],
    )
