"""What is registered, from archive, request and settings, by the contract's precedence.

Source: contracts/torchserve.md 3.4.  One departure, for operators' sake: a
timeout parameter gives way only to a timeout that model-config.yaml *states*,
not to the file's mere presence.
"""

from __future__ import annotations

from typing import Final

from stoker.archives.model_config import ModelConfig
from stoker.archives.resolve import ResolvedArchive
from stoker.errors import InvalidParameter
from stoker.settings import Settings
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.placement import usable_device_ids
from stoker.supervisor.versions import VersionSpec

DEFAULT_BATCH_SIZE: Final = 1
DEFAULT_BATCH_DELAY_S: Final = 0.1
MAX_BATCH_SIZE: Final = 4096
NO_CONFIG: Final = ModelConfig()
MAX_WORKERS: Final = 1024


def build_spec(
    archive: ResolvedArchive,
    arguments: Arguments,
    settings: Settings,
    places: DevicePlaces,
    is_startup: bool,
) -> VersionSpec:
    """Raises InvalidParameter for a batch size beyond reason."""
    config = archive.config or NO_CONFIG
    batch_size = arguments.optional("batch_size", int) or config.batch_size or DEFAULT_BATCH_SIZE
    if not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise InvalidParameter(
            f"Parameter batch_size must lie between 1 and {MAX_BATCH_SIZE}.",
            parameter="batch_size",
        )
    delay_s = arguments.seconds("max_batch_delay_s")
    if delay_s is None:
        delay_s = config.max_batch_delay_s or DEFAULT_BATCH_DELAY_S
    has_gpus = bool(places.devices)
    device_type = "gpu" if has_gpus and config.device_type != "cpu" else "cpu"
    device_ids = usable_device_ids(config.device_ids, len(places.devices)) if has_gpus else ()
    return VersionSpec(
        model=archive.model,
        version=archive.version,
        batch=BatchPolicy(batch_size, delay_s),
        queue_capacity=config.job_queue_size or settings.job_queue_size,
        response_timeout_s=config.response_timeout_s
        or arguments.seconds("response_timeout_s")
        or settings.default_response_timeout,
        startup_timeout_s=config.startup_timeout_s
        or arguments.seconds("startup_timeout_s")
        or settings.default_startup_timeout,
        max_retry_s=config.max_retry_timeout_s,
        client_timeout_s=config.client_timeout_s or 0.0,
        max_attempts=1 if is_not_idempotent(archive) else settings.max_attempts,
        device_type=device_type,
        device_ids=device_ids,
        is_loaded_at_startup=is_startup,
        loading={
            "handler": archive.handler,
            "model_dir": None if archive.model_dir is None else str(archive.model_dir),
            "manifest": archive.manifest,
            "config": archive.config_raw,
            "envelope": archive.envelope or settings.service_envelope,
            "decode_request": settings.decode_input_request,
            "limit_max_image_pixels": settings.limit_max_image_pixels,
            "max_response_bytes": settings.max_response_size,
        },
        shown={"url": archive.url, "runtime": archive.runtime},
    )


def is_not_idempotent(archive: ResolvedArchive) -> bool:
    """`idempotent: false` in model-config.yaml: never give a request to a handler twice."""
    return archive.config_raw.get("idempotent") is False


def initial_workers(
    archive: ResolvedArchive, arguments: Arguments, settings: Settings
) -> tuple[int, int]:
    """(min, max) workers to begin with: model-config.yaml when it asks for more, else the request.

    Raises:
        InvalidParameter: More than a host can mean.
    """
    asked = arguments.optional("initial_workers", int)
    count = max(0, settings.default_workers_per_model if asked is None else asked)
    config = archive.config or NO_CONFIG
    low, high = config.min_workers or 0, config.max_workers or 0
    if low > 0 and high >= low > count:
        return low, high
    if count > MAX_WORKERS:
        raise InvalidParameter(
            f"Parameter initial_workers must be at most {MAX_WORKERS}.",
            parameter="initial_workers",
        )
    return count, count
