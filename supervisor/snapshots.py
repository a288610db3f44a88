"""TorchServe's snapshot files: everything a server was, as a file it can be started with.

    <log_dir>/config/20240131120000123-startup.cfg     when it has started
    <log_dir>/config/20240131120130004-snapshot.cfg    after every change, or when asked for
    <log_dir>/config/20240131180000871-shutdown.cfg    when it stops

A properties file with the settings in effect and `model_snapshot` (the peer's
JSON).  Without our own folders, which are a machine's, not a configuration's;
without secrets; without `load_models`, which `model_snapshot` stands for.  Of
several changes in a row the last ones may share a file.

These are for people, for other servers and for going back to TorchServe; what
a restart needs is in the journal.

Source: contracts/torchserve.md 9.5.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from stoker import __version__
from stoker.archives.snapshot import SnapshotEntry, write_snapshot
from stoker.errors import StateNotWritten
from stoker.logs import get_logger
from stoker.properties import write_properties
from stoker.settings import KNOWN, Effect, Settings
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.calls import Caller, Value
from stoker.supervisor.engine import Engine
from stoker.supervisor.journal import Journal

log = get_logger("control")

#: Older files go; the peer keeps all of them for ever.
KEPT_FILES: Final = 100
_FOLDERS: Final = ("runtime_dir", "state_dir", "cache_dir", "log_dir")
_LEFT_OUT: Final = frozenset({*_FOLDERS, "load_models", "model_snapshot", "restore_state"})


class SnapshotText(NamedTuple):
    """One file: `left_out` are versions that it cannot say, `model version` each."""

    name: str
    text: str
    left_out: list[str]


class Snapshots:
    """Writes snapshot files of one server.

    Args:
        begin: Runs something beside everything else.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        journal: Journal,
        begin: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._journal = journal
        self._begin = begin
        self._folder = settings.log_dir / "config"
        self._is_writing = False
        self._has_changed = False
        self._last: SnapshotText | None = None
        self._left_out: list[str] = []

    def note_change(self, kind: str = "snapshot") -> None:
        """If there are to be files, write one soon."""
        if not self._settings.config_snapshots:
            return
        self._has_changed = True
        if not self._is_writing:
            self._is_writing = True
            self._begin(self._write_changes(kind))

    async def take(self, arguments: Arguments, caller: Caller) -> Value:
        """The `snapshot` verb: a file of now, or its text.  Raises StateNotWritten."""
        snapshot = self.describe("snapshot")
        value: Value = {"name": snapshot.name, "left_out": snapshot.left_out}
        if arguments.flag("keep"):
            return {**value, "path": str(await self.write(snapshot))}
        return {**value, "text": snapshot.text.encode()}

    def stop(self) -> None:
        """Remember what there is now, before a stop takes it apart."""
        if self._settings.config_snapshots and self._last is None:
            self._last = self.describe("shutdown")

    async def close(self) -> None:
        if self._last is not None:
            with suppress(StateNotWritten):
                await self.write(self._last)

    async def write(self, snapshot: SnapshotText) -> Path:
        """Raises StateNotWritten."""
        if snapshot.left_out and snapshot.left_out != self._left_out:
            log.warning(
                "versions without an archive are not in the snapshot", versions=snapshot.left_out
            )
        self._left_out = snapshot.left_out
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(None, _write, self._folder, snapshot)
        except OSError as error:
            log.error("snapshot not written", folder=str(self._folder), reason=error.strerror)
            raise StateNotWritten(
                f"The snapshot cannot be written ({error.strerror}).", reason=str(error.strerror)
            ) from None

    async def _write_changes(self, kind: str) -> None:
        try:
            while self._has_changed:
                self._has_changed = False
                with suppress(StateNotWritten):
                    await self.write(self.describe(kind))
                kind = "snapshot"
        finally:
            self._is_writing = False

    def describe(self, kind: str) -> SnapshotText:
        """What a file of now says."""
        now_ms = time.time_ns() // 1_000_000
        stamp = time.strftime("%Y%m%d%H%M%S", time.localtime(now_ms // 1000))
        name = f"{stamp}{now_ms % 1000:03}-{kind}.cfg"
        entries, left_out = self._entries()
        models = write_snapshot(name, now_ms, entries)
        text = write_properties(
            [*_properties(self._settings), ("model_snapshot", models)],
            f"Saved by stoker {__version__}",
        )
        return SnapshotText(name, text, left_out)

    def _entries(self) -> tuple[list[SnapshotEntry], list[str]]:
        entries, left_out = [], []
        registry = self._engine.registry
        desired = self._journal.state.versions
        for served in registry:
            spec, crew = served.spec, served.crew
            if not spec.shown["url"]:
                left_out.append(f"{spec.model} {spec.version}")
                continue
            known = desired.get(spec.key)
            handler = known.asked.get("handler") if known is not None else None
            entries.append(
                SnapshotEntry(
                    spec.model,
                    spec.version,
                    spec.shown["url"],
                    is_default=registry.default_version(spec.model) == spec.version,
                    min_workers=crew.min_workers,
                    max_workers=crew.max_workers,
                    batch_size=spec.batch.max_size,
                    max_batch_delay_s=spec.batch.delay_s,
                    response_timeout_s=round(spec.response_timeout_s),
                    startup_timeout_s=round(spec.startup_timeout_s),
                    runtime=spec.shown["runtime"],
                    parallel_level=spec.parallel_level,
                    handler=handler if isinstance(handler, str) else None,
                )
            )
        return entries, left_out


def _properties(settings: Settings) -> list[tuple[str, str]]:
    """The peer's keys that do something here, and whatever else is not at its default."""
    found = []
    for name, known in KNOWN.items():
        value = getattr(settings, name)
        is_said = value != known.default or (
            known.about.is_peer_key and known.about.effect is Effect.NOW
        )
        if name in _LEFT_OUT or known.about.is_secret or not is_said or value in (None, "", ()):
            continue
        found.append((name, _as_text(value)))
    return found


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _write(folder: Path, snapshot: SnapshotText) -> Path:
    """Whole or not at all.  Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = folder / f".{snapshot.name}"
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(handle, "w", encoding="ascii") as file:
            file.write(snapshot.text)
        path = fresh.replace(folder / snapshot.name)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    for old in sorted(folder.glob("*-*.cfg"))[:-KEPT_FILES]:
        old.unlink(missing_ok=True)
    return path
