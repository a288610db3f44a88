"""GPUs as handlers see them, with an NVML that exists only here."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from stoker.supervisor.devices import (
    Device,
    GpuUsage,
    discover,
    open_nvml,
    usage,
    usage_text,
)

MIB = 1 << 20


@dataclass
class Gpu:
    uuid: str
    slices: list[Gpu] = field(default_factory=list)
    used_bytes: int = 678 * MIB
    total_bytes: int = 16384 * MIB
    has_rates: bool = True


class FakeNvml:
    """Answers like `pynvml`, with bytes where old versions of it had them."""

    def __init__(self, gpus: list[Gpu], is_old: bool = False) -> None:
        self.gpus = gpus
        self.is_old = is_old

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Gpu:
        for gpu in self.gpus:
            for piece in (gpu, *gpu.slices):
                if piece.uuid == uuid:
                    return piece
        raise RuntimeError("GPU is lost")

    def nvmlDeviceGetUUID(self, handle: Gpu) -> str | bytes:
        return handle.uuid.encode() if self.is_old else handle.uuid

    def nvmlDeviceGetName(self, handle: Gpu) -> str | bytes:
        return b"Tesla" if self.is_old else "Tesla"

    def nvmlDeviceGetMemoryInfo(self, handle: Gpu) -> Any:
        return SimpleNamespace(total=handle.total_bytes, used=handle.used_bytes)

    def nvmlDeviceGetUtilizationRates(self, handle: Gpu) -> Any:
        if not handle.has_rates:
            raise RuntimeError("Not Supported")
        return SimpleNamespace(gpu=17, memory=3)

    def nvmlDeviceGetMigMode(self, handle: Gpu) -> list[int]:
        if not handle.slices:
            raise RuntimeError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Gpu) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Gpu, index: int) -> Gpu:
        # Slots need not be cut from the left.
        if index % 2:
            return handle.slices[index // 2]
        raise RuntimeError("Not Found")


FOUR = [Gpu("GPU-aa00"), Gpu("GPU-aa11"), Gpu("GPU-bb22"), Gpu("GPU-cc33")]
SLICED = [
    Gpu("GPU-aa00", [Gpu("MIG-01", has_rates=False), Gpu("MIG-02", has_rates=False)]),
    Gpu("GPU-bb"),
]


def uuids(visible: str | None, gpus: list[Gpu] = FOUR, most: int | None = None) -> list[str]:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    devices = discover(most, environ, FakeNvml(gpus))
    assert [device.index for device in devices] == list(range(len(devices)))
    return [device.uuid for device in devices]


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, ["GPU-aa00", "GPU-aa11", "GPU-bb22", "GPU-cc33"]),
        ("", []),
        ("2,0", ["GPU-bb22", "GPU-aa00"]),
        (" 1 , 3 ", ["GPU-aa11", "GPU-cc33"]),
        ("0,-1,1", ["GPU-aa00"]),
        ("-1", []),
        ("0,9,1", ["GPU-aa00"]),
        ("0,x,1", ["GPU-aa00"]),
        ("NoDevFiles", []),
        ("1,1", []),
        ("GPU-cc33,GPU-aa11", ["GPU-cc33", "GPU-aa11"]),
        ("GPU-b", ["GPU-bb22"]),
        ("GPU-aa", []),
        ("GPU-aa00,GPU-ff", ["GPU-aa00"]),
        ("²", []),
    ],
)
def test_visible_devices_are_read_by_cudas_rules(visible: str | None, seen: list[str]) -> None:
    """
    `gpu_id` indexes what the handler's CUDA sees, so we must see the same.
    """
    assert uuids(visible) == seen


@pytest.mark.parametrize(("most", "count"), [(None, 4), (0, 0), (2, 2), (9, 4), (-1, 0)])
def test_number_of_gpu_is_a_cap(most: int | None, count: int) -> None:
    """
    The smaller of what is there and what the setting says.
    """
    assert uuids(None, most=most) == [gpu.uuid for gpu in FOUR[:count]]


def test_no_gpus_asked_for_touches_no_driver() -> None:
    """
    `number_of_gpu=0` is also how one works around a sick driver.
    """
    assert discover(0, {}, SimpleNamespace()) == ()  # type: ignore[arg-type]


def test_a_host_without_a_driver_has_no_gpus() -> None:
    """
    Most hosts, and not an error.
    """
    if open_nvml() is not None:
        pytest.skip("this host has GPUs")

    assert discover(None, {}) == ()
    assert usage_text(Device(0, "GPU-aa00", "Tesla", 1)) == "failed to obtained gpu usage"


def test_a_broken_driver_is_no_gpus_and_a_warning() -> None:
    """
    The server starts and says why models run on the CPU.
    """
    assert discover(None, {}, SimpleNamespace(nvmlDeviceGetCount=lambda: 1)) == ()  # type: ignore[arg-type]


def test_old_bindings_answer_bytes() -> None:
    """
    And their name and uuid are still text for us.
    """
    (device,) = discover(1, {}, FakeNvml(FOUR, is_old=True))

    assert device == Device(0, "GPU-aa00", "Tesla", 16384 * MIB)


def test_slices_are_devices_in_place_of_their_gpu() -> None:
    """
    With MIG on, nothing can run on the GPU as a whole.
    """
    assert uuids(None, SLICED) == ["MIG-01", "MIG-02", "GPU-bb"]
    assert uuids("1,0", SLICED) == ["GPU-bb", "MIG-01", "MIG-02"]
    assert uuids("MIG-02", SLICED) == ["MIG-02"]
    assert uuids("MIG-02,MIG-02", SLICED) == []
    assert uuids("0,MIG-02", SLICED) == []


def test_a_worker_on_a_slice_sees_it_as_its_first_device() -> None:
    """
    CUDA shows one process one slice.
    """
    devices = discover(None, {}, FakeNvml(SLICED))

    assert [device.gpu_id for device in devices] == [0, 0, 2]


def test_usage_has_the_peers_words() -> None:
    """
    Dashboards parse this string.
    """
    nvml = FakeNvml(FOUR)
    device = discover(None, {}, nvml)[0]

    assert usage(device, nvml) == GpuUsage(0, 17, 3, 678 * MIB)
    assert usage_text(device, nvml) == (
        "gpuId::0 utilization.gpu [%]::17 % utilization.memory [%]::3 % memory.used [MiB]::678 MiB"
    )


def test_a_slice_has_memory_but_no_utilisation() -> None:
    """
    As `nvidia-smi` prints it.
    """
    nvml = FakeNvml(SLICED)
    device = discover(None, {}, nvml)[1]

    assert usage_text(device, nvml) == (
        "gpuId::1 utilization.gpu [%]::[N/A] utilization.memory [%]::[N/A] "
        "memory.used [MiB]::678 MiB"
    )


def test_usage_without_a_device_or_an_answer() -> None:
    """
    The peer's words for both, odd as one of them is.
    """
    lost = Device(0, "GPU-gone", "Tesla", 1)

    assert usage_text(None) == "N/A"
    assert usage_text(lost, FakeNvml(FOUR)) == "failed to obtained gpu usage"
