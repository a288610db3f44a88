"""Which of the host's devices a version's workers are for, and how many workers those take.

Source: contracts/torchserve.md 3.5.
"""

from __future__ import annotations

from dataclasses import replace

from stoker.archives.devices import parse_devices
from stoker.archives.model_config import ModelConfig
from stoker.errors import InvalidParameter, NotEnoughDevices
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.placement import groups, usable_device_ids
from stoker.supervisor.versions import VersionSpec


def on_devices(config: ModelConfig, named: str, places: DevicePlaces) -> ModelConfig:
    """The request's devices in place of the archive's.

    Raises:
        InvalidParameter: There is no such device here.
    """
    kind, ids = parse_devices(named)
    if kind == "gpu" and not (places.devices and usable_device_ids(ids, len(places.devices))):
        raise InvalidParameter(
            f"Parameter device names {named}; this server has {len(places.devices)} GPUs.",
            parameter="device",
        )
    return replace(config, device_type=kind, device_ids=ids)


def counted_devices(
    config: ModelConfig, device_ids: tuple[int, ...], places: DevicePlaces
) -> tuple[int, ...]:
    """Where counts are meant for each device: which devices; () where there is but one group."""
    found = groups(device_ids, len(places.devices), max(1, config.parallel_level))
    firsts = tuple(dict.fromkeys(group[0] for group in found))
    return firsts if len(firsts) > 1 else ()


def workers_on_gpus(
    model: str, config: ModelConfig, device_ids: tuple[int, ...], places: DevicePlaces
) -> int | None:
    """How many workers there are GPUs for, where each takes several (3.5)."""
    level = config.parallel_level
    if not level:
        return None
    most = len(groups(device_ids, len(places.devices), level))
    if not most:
        raise NotEnoughDevices(
            f"No enough gpu devices for model:{model} parallelLevel:{level}",
            model=model,
            wanted=level,
        )
    return most


def device_groups(spec: VersionSpec, places: DevicePlaces) -> int:
    """How many devices, or groups of them, workers of a version are spread over."""
    if spec.device_type != "gpu":
        return 1
    return spec.most_workers or len(spec.device_ids) or len(places.devices)
