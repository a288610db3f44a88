"""What an archive's files say of its version: name, handler, settings, whose contract.

Source: contracts/torchserve.md 6.1-6.3; contracts/djl-serving.md 6.3, 10, 11.
"""

from __future__ import annotations

from pathlib import Path

from stoker.archives.archive import DJL, ArchiveRequest, ResolvedArchive
from stoker.archives.engines import BUILT_IN, check_engine, check_options, detect_engine
from stoker.archives.manifest import Manifest, read_manifest
from stoker.archives.members import BadMember, member_parts
from stoker.archives.model_config import ModelConfig, read_model_config
from stoker.archives.serving_properties import (
    DEFAULT_FUNCTION,
    ServingProperties,
    read_serving_properties,
)
from stoker.errors import EngineUnknown, ManifestInvalid
from stoker.names import check_model_name, check_version


def read_archive(
    request: ArchiveRequest, runtime: str | None, model_dir: Path, content_hash: str | None
) -> ResolvedArchive:
    """One version out of its folder.

    Args:
        runtime: As the request says it; None: as the archive does.

    Raises:
        ArchiveError: any of its kinds.
    """
    url = request.url or ""
    manifest = read_manifest(model_dir, url)
    model_dir = model_dir / manifest.folder
    serving = read_serving_properties(model_dir, url)
    if request.engine or serving.engine:
        check_engine(request.engine or serving.engine, url)
    if manifest.raw is None and (serving.is_stated or not _names_handler(request, manifest)):
        return _read_djl(request, runtime, model_dir, content_hash, manifest, serving)
    name, version = _name(request, manifest, url), _version(request, manifest, url)
    warnings: list[str] = []
    config = _read_config(model_dir, manifest, url, warnings)
    if config is None and serving.is_stated:
        config = serving.config
    handler = request.handler or manifest.handler or request.default_handler
    if not handler:
        raise ManifestInvalid("Handler is not defined.", url=url)
    return ResolvedArchive(
        model=name,
        version=version,
        handler=handler,
        runtime=runtime or manifest.runtime,
        url=url,
        model_dir=model_dir,
        manifest=manifest.raw,
        envelope=manifest.envelope,
        config=config,
        config_raw=config.raw if config else {},
        content_hash=content_hash,
        requirements_file=_file(
            model_dir, manifest.requirements_file, "requirementsFile", url, warnings
        ),
        warnings=(*warnings, *(config.warnings if config else ())),
        contract=manifest.contract,
    )


def _names_handler(request: ArchiveRequest, manifest: Manifest) -> bool:
    return bool(request.handler or manifest.handler or request.default_handler)


def _read_djl(
    request: ArchiveRequest,
    runtime: str | None,
    model_dir: Path,
    content_hash: str | None,
    manifest: Manifest,
    serving: ServingProperties,
) -> ResolvedArchive:
    """An archive without a manifest: for DJL Serving, if anything says so."""
    url = request.url or ""
    name = _name(request, manifest, url)
    engine = request.engine or serving.engine
    if not engine:
        try:
            engine = check_engine(detect_engine(model_dir, serving.options, url), url)
        except EngineUnknown:
            if serving.is_stated or request.engine is not None:
                raise
            raise ManifestInvalid("Handler is not defined.", url=url) from None
    entry_point, function = serving.entry_point, request.handler or serving.function
    built_in = BUILT_IN.get(check_engine(engine, url))
    if built_in is not None and not (model_dir / entry_point).is_file():
        check_options(serving.options, url)
        entry_point, function = built_in, DEFAULT_FUNCTION
    if ":" in function:
        entry_point, _, function = function.rpartition(":")
    if entry_point.endswith(".py") and not model_dir.joinpath(entry_point).is_file():
        raise ManifestInvalid(f"{entry_point} is not in the archive.", url=url)
    requirements = model_dir / "requirements.txt"
    return ResolvedArchive(
        model=name,
        version=_version(request, manifest, url),
        handler=f"{entry_point}:{function}",
        runtime=runtime or manifest.runtime,
        url=url,
        model_dir=model_dir,
        contract=DJL,
        config=serving.config,
        config_raw=dict(serving.options),
        content_hash=content_hash,
        requirements_file=requirements if requirements.is_file() else None,
    )


def _name(request: ArchiveRequest, manifest: Manifest, url: str) -> str:
    name = request.model or manifest.model_name or request.default_model
    if not name:
        raise ManifestInvalid("Model name is not defined.", url=url)
    return check_model_name(name)


def _version(request: ArchiveRequest, manifest: Manifest, url: str) -> str:
    return check_version(request.version or manifest.model_version)


def _read_config(
    model_dir: Path, manifest: Manifest, url: str, warnings: list[str]
) -> ModelConfig | None:
    path = _file(model_dir, manifest.config_file, "configFile", url, warnings)
    return read_model_config(path, url) if path is not None else None


def _file(
    model_dir: Path, name: str | None, entry: str, url: str, warnings: list[str]
) -> Path | None:
    """A file that the manifest names; it must lie inside the model's own folder.

    A directory of the model store may hold links, so the end of the path counts.
    """
    if name is None:
        return None
    try:
        path = model_dir.joinpath(*member_parts(name)).resolve()
        is_inside = model_dir.resolve() in path.parents
    except (BadMember, OSError, ValueError, RuntimeError):
        is_inside = False
    if not is_inside:
        raise ManifestInvalid(f"The manifest's {entry} leads out of the archive.", url=url)
    if not path.is_file():
        warnings.append(f"the manifest's {entry} is not in the archive and is ignored")
        return None
    return path
