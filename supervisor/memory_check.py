"""Whether there is memory for a version, before anything is downloaded or started for it.

    free - required_memory_mb < reserved_memory_mb        not enough

Looked at where somebody says what is needed or what must stay free (the call,
or the archive once it is here), and for every call of a DJL Serving client,
whose server always looks.

Source: contracts/djl-serving.md 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stoker.archives.model_config import ModelConfig
from stoker.errors import NotEnoughMemory
from stoker.settings import Settings
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.devices import Device, Nvml, usage
from stoker.supervisor.host_memory import available_bytes

_MIB: Final = 1 << 20


def check_memory(arguments: Arguments, config: ModelConfig, settings: Settings) -> None:
    """Raises NotEnoughMemory, InvalidParameter."""
    required = arguments.optional("required_memory_mb", int)
    reserved = arguments.optional("reserved_memory_mb", int)
    required = config.required_memory_mb if required is None else required
    reserved = config.reserved_memory_mb if reserved is None else reserved
    if not required and reserved is None and not arguments.flag("checks_memory"):
        return
    available_mb = available_bytes() // _MIB
    _check("", required or 0, _or(reserved, settings), available_mb)


def check_device_memory(
    config: ModelConfig, devices: Sequence[Device], settings: Settings, nvml: Nvml | None = None
) -> None:
    """The same of every GPU that a version is to use; a GPU that cannot be read is let be.

    NVML may take its time: call it outside the loop's thread.

    Raises:
        NotEnoughMemory
    """
    required, reserved = config.gpu_required_memory_mb, config.gpu_reserved_memory_mb
    if not required and reserved is None:
        return
    for device in devices:
        found = usage(device, nvml)
        if found is not None:
            free_mb = (device.memory_bytes - found.memory_used_bytes) // _MIB
            _check(f" of GPU {device.index}", required or 0, _or(reserved, settings), free_mb)


def _or(reserved: int | None, settings: Settings) -> int:
    return settings.reserved_memory_mb if reserved is None else reserved


def _check(whose: str, required_mb: int, reserved_mb: int, available_mb: int) -> None:
    if available_mb - required_mb < reserved_mb:
        raise NotEnoughMemory(
            f"The model needs {required_mb} MiB{whose}, {reserved_mb} MiB must stay free, and "
            f"only {available_mb} MiB are free.",
            required_mb=required_mb,
            reserved_mb=reserved_mb,
            available_mb=available_mb,
        )
