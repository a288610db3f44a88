"""Versions out of their archives: into the engine, and each archive in use as long as they are.

An archive that was obtained is somebody's to release.  From `serve` or
`replace` on it is ours, until the last worker of its version is gone.
"""

from __future__ import annotations

from stoker.archives.archive import ResolvedArchive
from stoker.logs import get_logger
from stoker.settings import Settings
from stoker.supervisor.adapter_files import remove_adapters
from stoker.supervisor.archive_source import ArchiveSource
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.engine import Engine
from stoker.supervisor.fencing import FencingMeans
from stoker.supervisor.specs import build_spec
from stoker.supervisor.versions import VersionSpec

log = get_logger("control")


class VersionArchives:
    """The archives of all versions that are served.

    Attributes:
        loaded_at_start: Names of models, in order; they stay when their models
            go (`/invocations`).
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        places: DevicePlaces,
        source: ArchiveSource,
        means: FencingMeans,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._places = places
        self._source = source
        self._means = means
        self._held: dict[VersionSpec, ResolvedArchive] = {}
        self.loaded_at_start: list[str] = []

    def spec(
        self, archive: ResolvedArchive, arguments: Arguments, *, is_startup: bool
    ) -> VersionSpec:
        """What a version of an archive is.  Raises what `build_spec` raises."""
        for warning in archive.warnings:
            log.warning("archive has a flaw", model=archive.model, flaw=warning)
        return build_spec(archive, arguments, self._settings, self._places, is_startup, self._means)

    def serve(self, spec: VersionSpec, archive: ResolvedArchive) -> None:
        """Raises VersionExists, ShuttingDown."""
        self._engine.versions.register(spec)
        self._held[spec] = archive
        if spec.is_loaded_at_startup and spec.model not in self.loaded_at_start:
            self.loaded_at_start.append(spec.model)

    def replace(self, spec: VersionSpec, archive: ResolvedArchive) -> None:
        """A version that is served without an archive gets one.  Raises StokerError."""
        self._engine.versions.replace(spec)
        self._held[spec] = archive

    def archive_of(self, spec: VersionSpec) -> ResolvedArchive:
        return self._held[spec]

    def release(self, spec: VersionSpec) -> None:
        """A version is gone with all its workers: its archive is not needed any more."""
        if name := spec.loading.get("adapters_name"):
            remove_adapters(name)
        archive = self._held.pop(spec, None)
        if archive is not None:
            self._source.release(archive)

    def release_unless_held(self, spec: VersionSpec | None, archive: ResolvedArchive) -> None:
        """What was obtained for a version that may have come to nothing."""
        if spec is None or self._held.get(spec) is not archive:
            self._source.release(archive)
