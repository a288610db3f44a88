"""Whether there is memory for a version, before anything is downloaded or started for it.

    free - required_memory_mb < reserved_memory_mb        not enough

Looked at where somebody says what is needed or what must stay free (the call,
or the archive once it is here), and for every call of a DJL Serving client,
whose server always looks.

Source: contracts/djl-serving.md 11.
"""

from __future__ import annotations

from typing import Final

from stoker.archives.model_config import ModelConfig
from stoker.errors import NotEnoughMemory
from stoker.settings import Settings
from stoker.supervisor.arguments import Arguments
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
    required_mb = required or 0
    reserved_mb = settings.reserved_memory_mb if reserved is None else reserved
    available_mb = available_bytes() // _MIB
    if available_mb - required_mb < reserved_mb:
        raise NotEnoughMemory(
            f"The model needs {required_mb} MiB, {reserved_mb} MiB must stay free, and only "
            f"{available_mb} MiB are free.",
            required_mb=required_mb,
            reserved_mb=reserved_mb,
            available_mb=available_mb,
        )
