"""What is registered, from archive, request and settings, by the contract's precedence.

Source: contracts/torchserve.md 3.4.  One departure, for operators' sake: a
timeout parameter gives way only to a timeout that model-config.yaml *states*,
not to the file's mere presence.
"""

from __future__ import annotations

from typing import Final, TypeVar

from stoker.archives.archive import DJL, DJL_FUNCTION, ResolvedArchive
from stoker.archives.manifest import MMS, TORCHSERVE, engine_name, parse_runtime
from stoker.archives.model_config import NO_CONFIG, ModelConfig, flaws, not_built
from stoker.errors import InvalidParameter, ManifestInvalid
from stoker.settings import Settings
from stoker.settings.models_json import read_models
from stoker.supervisor.adapter_files import adapters_name
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.fences import BUBBLEWRAP, Fence
from stoker.supervisor.fencing import FencingMeans, choose_fence
from stoker.supervisor.placement import usable_device_ids
from stoker.supervisor.recycling import Limits
from stoker.supervisor.sequences import SequencePolicy
from stoker.supervisor.version_devices import counted_devices, on_devices, workers_on_gpus
from stoker.supervisor.versions import VersionSpec
from stoker.wire.loading import ASYNC, BATCHES, CONTINUOUS
from stoker.wire.sequence_labels import SequenceHeaders

N = TypeVar("N", int, float)

#: What describe calls the engine of an archive.
ENGINES: Final = {TORCHSERVE: "Torch", MMS: "Torch", DJL: "Python", DJL_FUNCTION: "Python"}
MAX_BATCH_SIZE: Final = 4096
#: Of one asynchronous worker.
DEFAULT_REQUESTS_IN_HAND: Final = 256
MAX_REQUESTS_IN_HAND: Final = 4096
#: Of the argument `preload`; else "on".
OFF: Final = "off"
#: Where every rank handles every batch; with `pp` the first feeds the others itself (6.3).
BROADCAST_TYPES: Final = frozenset({"tp", "pptp"})


def build_spec(
    archive: ResolvedArchive,
    arguments: Arguments,
    settings: Settings,
    places: DevicePlaces,
    is_startup: bool,
    means: FencingMeans,
) -> VersionSpec:
    """Merge everything that is said about one version.

    Raises:
        InvalidParameter: A batch size beyond reason.
        ManifestInvalid: The archive asks for what this release does not have.
        NotEnoughDevices: Fewer GPUs than one worker takes.
        RuntimeInvalid: From the `models` setting.
        SandboxMissing: The fence that it asks for cannot be had.
    """
    config = archive.config or NO_CONFIG
    _check_is_built(config, archive.url)
    if (named := arguments.optional("devices", str)) is not None:
        config = on_devices(config, named, places)
    sequences = _sequences(config, settings, archive.url)
    is_tried_once = sequences is not None or is_not_idempotent(archive)
    override = read_models(settings.models).of(archive.model, archive.version)
    batch_size = (
        arguments.optional("batch_size", int)
        or config.batch_size
        or override.batch_size
        or settings.default_batch_size
    )
    check_batch_size(batch_size)
    delay_s = arguments.seconds("max_batch_delay_s")
    if delay_s is None:
        delay_s = config.max_batch_delay_s
    if delay_s is None:
        delay_s = override.max_batch_delay_s or settings.default_batch_delay_s
    mode, jobs_at_once = _mode(config, batch_size)
    has_gpus = bool(places.devices)
    device_type = "gpu" if has_gpus and config.device_type != "cpu" else "cpu"
    device_ids = usable_device_ids(config.device_ids, len(places.devices)) if has_gpus else ()
    most_workers = None
    if device_type == "gpu":
        most_workers = workers_on_gpus(archive.model, config, device_ids, places)
    fence = choose_fence(config, settings, means)
    return VersionSpec(
        model=archive.model,
        version=archive.version,
        parallel_type=config.parallel_type or "",
        parallel_level=config.parallel_level,
        most_workers=most_workers,
        python=archive.python,
        packages_dir=None if archive.packages_dir is None else str(archive.packages_dir),
        jobs_at_once=jobs_at_once,
        uses_job_tickets=config.use_job_ticket,
        has_time_limits=not settings.debug,
        omp_threads=config.torchrun.omp_threads if config.torchrun else 1,
        batch=BatchPolicy(batch_size, delay_s),
        queue_capacity=arguments.optional("queue_capacity", int)
        or config.job_queue_size
        or settings.job_queue_size,
        max_idle_s=_stated(
            arguments.seconds("max_idle_s"), _stated(config.max_idle_s, settings.max_idle_s)
        ),
        response_timeout_s=config.response_timeout_s
        or override.response_timeout_s
        or arguments.seconds("response_timeout_s")
        or settings.default_response_timeout,
        startup_timeout_s=config.startup_timeout_s
        or override.startup_timeout_s
        or arguments.seconds("startup_timeout_s")
        or settings.default_startup_timeout,
        max_retry_s=config.max_retry_timeout_s,
        client_timeout_s=config.client_timeout_s or 0.0,
        max_attempts=1 if is_tried_once else settings.max_attempts,
        sequences=sequences,
        quarantine_s=settings.quarantine_s,
        limits=_limits(config, settings),
        fence=fence,
        device_type=device_type,
        device_ids=device_ids,
        is_loaded_at_startup=is_startup,
        is_preloaded=_is_preloaded(archive, config, arguments, settings, fence),
        number_gpu=arguments.optional("number_gpu", int),
        group_devices=counted_devices(config, device_ids, places)
        if device_type == "gpu" and arguments.flag("per_device")
        else (),
        queue_wait_target_s=_first(
            arguments.seconds("queue_wait_target_s") or None,
            config.queue_wait_target_s,
            settings.queue_wait_target_s,
        ),
        required_memory_bytes=_first(
            arguments.optional("required_memory_mb", int), config.required_memory_mb, 0
        )
        << 20,
        reserved_memory_bytes=_first(
            arguments.optional("reserved_memory_mb", int),
            config.reserved_memory_mb,
            settings.reserved_memory_mb,
        )
        << 20,
        loading={
            "handler": archive.handler,
            "model_dir": None if archive.model_dir is None else str(archive.model_dir),
            "manifest": archive.manifest,
            "contract": archive.contract,
            "adapters_name": _adapters_name(archive, settings),
            "config": archive.config_raw,
            "envelope": archive.envelope or settings.service_envelope,
            "decode_request": settings.decode_input_request,
            "limit_max_image_pixels": settings.limit_max_image_pixels,
            "max_response_bytes": settings.max_response_size,
            "mode": mode,
            "jobs_at_once": jobs_at_once,
            "is_broadcast": config.parallel_type in BROADCAST_TYPES,
            **_sequence_loading(sequences),
        },
        shown={
            "url": archive.url,
            "engine": arguments.optional("engine", str) or ENGINES[archive.contract],
            "manifest_engine": engine_name(archive.manifest),
            "is_unversioned": arguments.flag("is_unversioned"),
            "runtime": parse_runtime(override.runtime) if override.runtime else archive.runtime,
        },
    )


def _adapters_name(archive: ResolvedArchive, settings: Settings) -> str:
    """Of the file that its workers share; "" for a model that takes no adapters."""
    is_enabled = str(archive.config_raw.get("enable_lora", "")).lower() == "true"
    if archive.contract != DJL or not is_enabled:
        return ""
    return adapters_name(settings.runtime_dir, archive.model, archive.version)


def check_batch_size(size: int) -> int:
    """Raises InvalidParameter for one beyond reason."""
    if not 1 <= size <= MAX_BATCH_SIZE:
        raise InvalidParameter(
            f"Parameter batch_size must lie between 1 and {MAX_BATCH_SIZE}.",
            parameter="batch_size",
        )
    return size


def _sequences(config: ModelConfig, settings: Settings, url: str) -> SequencePolicy | None:
    """What `sequenceBatching` asks for; None without it.

    Raises:
        ManifestInvalid: Something that no sequence could live with, or no host.
    """
    if not config.sequence_batching:
        return None
    if found := flaws(config):
        raise ManifestInvalid(f"model-config.yaml: {'; '.join(found)}.", url=url)
    return SequencePolicy(
        max_idle_s=config.sequence_max_idle_s,
        timeout_s=config.sequence_timeout_s or 0.0,
        max_open=config.max_num_sequence,
        max_waiting=config.max_sequence_job_queue_size,
        headers=SequenceHeaders(
            settings.ts_header_key_sequence_id,
            settings.ts_header_key_sequence_start,
            settings.ts_header_key_sequence_end,
        ),
    )


def _sequence_loading(sequences: SequencePolicy | None) -> dict[str, object]:
    """What the worker must know of them."""
    if sequences is None:
        return {}
    return {
        "sequence_headers": list(sequences.headers),
        "sequence_max_idle_s": sequences.max_idle_s,
        "sequence_timeout_s": sequences.timeout_s,
    }


def _mode(config: ModelConfig, batch_size: int) -> tuple[str, int]:
    """How the handler is called, and how many requests one worker works on at once (8.7, 8.8)."""
    if config.async_communication:
        most = config.max_requests_in_hand or DEFAULT_REQUESTS_IN_HAND
        return ASYNC, min(most, MAX_REQUESTS_IN_HAND)
    return (CONTINUOUS, batch_size) if config.continuous_batching else (BATCHES, 0)


def _is_preloaded(
    archive: ResolvedArchive,
    config: ModelConfig,
    arguments: Arguments,
    settings: Settings,
    fence: Fence | None,
) -> bool:
    """Whether the model is loaded once, in a process that its workers are forked from.

    Raises:
        InvalidParameter: It was asked for, and this model cannot be.
    """
    asked = arguments.optional("preload", str)
    if asked == OFF or not (asked or settings.preload_model):
        return False
    why_not = ""
    if config.parallel_level:
        why_not = "a worker of several processes cannot be forked"
    elif archive.contract == DJL:
        why_not = "handlers of DJL Serving are loaded by each worker"
    elif fence is not None and fence.kind == BUBBLEWRAP:
        why_not = "the sandbox is made around each worker"
    if why_not and asked:
        raise InvalidParameter(
            f"preload_model is not possible: {why_not}.", parameter="preload_model"
        )
    return not why_not


def _limits(config: ModelConfig, settings: Settings) -> Limits:
    """The archive's where it says something, a 0 included; else the server's."""
    return Limits(
        jobs=_stated(config.max_worker_jobs, settings.max_worker_jobs),
        age_s=_stated(config.max_worker_age_s, settings.max_worker_age_s),
        memory_bytes=_stated(config.max_worker_memory_mb, settings.max_worker_memory_mb) << 20,
        kill_bytes=_stated(config.worker_memory_limit_mb, settings.worker_memory_limit_mb) << 20,
    )


def _first(asked: N | None, own: N | None, default: N) -> N:
    """What the request says, else the archive, else the server; a 0 is said."""
    return asked if asked is not None else _stated(own, default)


def _stated(own: N | None, default: N) -> N:
    return default if own is None else own


def is_not_idempotent(archive: ResolvedArchive) -> bool:
    """`idempotent: false` in model-config.yaml: never give a request to a handler twice."""
    return archive.config_raw.get("idempotent") is False


def _check_is_built(config: ModelConfig, url: str) -> None:
    if missing := not_built(config):
        raise ManifestInvalid(
            f"model-config.yaml asks for {', '.join(missing)}, which this release does not have.",
            url=url,
        )
