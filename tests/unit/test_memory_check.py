"""Whether there is memory for a version that is registered (contracts/djl-serving.md 11)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stoker.archives.model_config import ModelConfig
from stoker.errors import NotEnoughMemory
from stoker.settings.load import load
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.devices import Device
from stoker.supervisor.memory_check import check_device_memory, check_memory

#: MiB that no host has.
TOO_MUCH = 1 << 30
GENEROUS = load(["--reserved-memory-mb", "0"], {})
STRICT = load(["--reserved-memory-mb", str(TOO_MUCH)], {})


@pytest.mark.parametrize(
    ("settings", "config", "arguments"),
    [
        (GENEROUS, {}, {"required_memory_mb": TOO_MUCH}),
        (GENEROUS, {"required_memory_mb": TOO_MUCH}, {}),
        (GENEROUS, {"reserved_memory_mb": TOO_MUCH}, {}),
        (STRICT, {"required_memory_mb": 1}, {}),
        (STRICT, {}, {"checks_memory": True}),
        (GENEROUS, {"required_memory_mb": 1}, {"required_memory_mb": TOO_MUCH}),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(settings, config, arguments):
    with pytest.raises(NotEnoughMemory) as caught:
        check_memory(Arguments(arguments), ModelConfig(**config), settings)

    assert {"required_mb", "reserved_mb", "available_mb"} == set(caught.value.details)


@pytest.mark.parametrize(
    ("settings", "config", "arguments"),
    [
        (STRICT, {}, {}),
        (GENEROUS, {}, {"checks_memory": True}),
        (STRICT, {"required_memory_mb": 1, "reserved_memory_mb": 0}, {}),
        (GENEROUS, {"required_memory_mb": TOO_MUCH}, {"required_memory_mb": 1}),
    ],
)
def test_what_fits_or_says_nothing_is_let_in(settings, config, arguments):
    """
    TorchServe's clients say nothing of memory, and must not begin to fail.
    """
    check_memory(Arguments(arguments), ModelConfig(**config), settings)


# -- GPUs -----------------------------------------------------------------------

MIB = 1 << 20
GPUS = [Device(index, f"GPU-{index}", "fake", 8000 * MIB) for index in range(2)]


class Nvml:
    """Of the second GPU 7000 MiB are taken; a third one has fallen off the bus."""

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid not in ("GPU-0", "GPU-1"):
            raise RuntimeError("GPU is lost")
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(used=7000 * MIB if handle == "GPU-1" else 0)

    def nvmlDeviceGetUtilizationRates(self, handle):
        return SimpleNamespace(gpu=0, memory=0)


def test_every_gpu_of_a_version_must_have_room():
    """
    `gpu.required_memory_mb`: what does not fit on one of them fails there later.
    """
    config = ModelConfig(gpu_required_memory_mb=900, gpu_reserved_memory_mb=200)

    check_device_memory(config, GPUS[:1], GENEROUS, Nvml())
    with pytest.raises(NotEnoughMemory) as caught:
        check_device_memory(config, GPUS, GENEROUS, Nvml())

    assert "GPU 1" in caught.value.message
    assert caught.value.details["available_mb"] == 1000


def test_a_gpu_that_cannot_be_read_and_a_version_that_says_nothing_are_let_be():
    lost = Device(2, "GPU-2", "fake", 8000 * MIB)

    check_device_memory(ModelConfig(gpu_required_memory_mb=9000), [lost], GENEROUS, Nvml())
    check_device_memory(ModelConfig(), GPUS, STRICT, Nvml())
