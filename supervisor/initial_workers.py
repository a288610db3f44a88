"""How many workers a version begins with, by the contract's precedence.

Source: contracts/torchserve.md 3.4, 8.9; contracts/mms.md 8.
"""

from __future__ import annotations

from typing import Final

from stoker.archives.archive import DJL, ResolvedArchive
from stoker.archives.model_config import NO_CONFIG
from stoker.errors import InvalidParameter, ManifestInvalid
from stoker.settings import Settings
from stoker.settings.models_json import read_models
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.processors import usable_processors

MAX_WORKERS: Final = 1024


def initial_workers(
    archive: ResolvedArchive, arguments: Arguments, settings: Settings
) -> tuple[int, int]:
    """(min, max) workers of a registration: the archive's own if it has both, else the request's.

    Bounds that a request states are stronger than the archive's (DJL Serving's rule).

    Raises:
        InvalidParameter, ManifestInvalid: More than a host can mean.
    """
    stated = (arguments.optional("min_workers", int), arguments.optional("max_workers", int))
    if stated != (None, None):
        return _stated_bounds(*stated)
    if bounds := _archives_bounds(archive):
        return bounds
    asked = arguments.optional("initial_workers", int)
    count = max(0, settings.default_workers_per_model if asked is None else asked)
    if count > MAX_WORKERS:
        raise InvalidParameter(
            f"Parameter initial_workers must be at most {MAX_WORKERS}.",
            parameter="initial_workers",
        )
    return count, count


def _stated_bounds(least: int | None, most: int | None) -> tuple[int, int]:
    """Who names one of the two means that one.  Raises InvalidParameter."""
    if least is None:
        assert most is not None
        least = min(1, most)
    if most is None:
        most = least
    if least < 0 or most < least:
        raise InvalidParameter("max_worker cannot be less than min_worker.", parameter="max_worker")
    if most > MAX_WORKERS:
        raise InvalidParameter(
            f"Parameter max_worker must be at most {MAX_WORKERS}.", parameter="max_worker"
        )
    return least, most


def startup_workers(
    archive: ResolvedArchive, settings: Settings, places: DevicePlaces
) -> tuple[int, int]:
    """(min, max) workers of a model loaded when the server starts (3.4, 8.9).

    The archive's own if it has both, else the `models` setting, each of the
    two by itself, else `default_workers_per_model`, else `startup_workers_per_model`
    (contracts/mms.md 8, NUM_WORKERS), else one per GPU or, without GPUs, per processor.

    Raises:
        ManifestInvalid: More than a host can mean.
    """
    if bounds := _archives_bounds(archive):
        return bounds
    default = (
        settings.default_workers_per_model
        or settings.startup_workers_per_model
        or len(places.devices)
    )
    if not default:
        default = 1 if archive.contract == DJL else usable_processors()
    override = read_models(settings.models).of(archive.model, archive.version)
    low = min(override.min_workers or default, MAX_WORKERS)
    high = min(override.max_workers or default, MAX_WORKERS)
    # The peer lets them cross; whoever names one of the two means that one.
    return (low, max(low, high)) if override.min_workers else (min(low, high), high)


def _archives_bounds(archive: ResolvedArchive) -> tuple[int, int] | None:
    bounds = (archive.config or NO_CONFIG).worker_bounds()
    if bounds is not None and bounds[1] > MAX_WORKERS:
        raise ManifestInvalid(
            f"model-config.yaml asks for more than {MAX_WORKERS} workers.", url=archive.url
        )
    return bounds
