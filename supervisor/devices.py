"""Which GPUs there are, as handlers will see them, and how busy they are.

NVML counts every GPU of the host in PCI order; a process sees what
`CUDA_VISIBLE_DEVICES` leaves, in its order.  A device's index here is the
second: workers inherit that variable, and with `CUDA_DEVICE_ORDER=PCI_BUS_ID`
(`worker_environment.py`) `torch.device("cuda", gpu_id)` is the GPU whose name
and usage we report.

A MIG slice is a device too, but CUDA shows a process only one of them; a
worker on a slice is therefore told to see that slice alone, as its device 0.

NVML calls may take milliseconds, and seconds when a GPU has fallen off the
bus: call `usage` outside the loop's thread.

Source: contracts/torchserve.md 3.6 (`gpuUsage`), 8.9.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from stoker.logs import get_logger

log = get_logger("devices")

_LIBRARY: Final = "libnvidia-ml.so.1"
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
USAGE_ON_CPU: Final = "N/A"
USAGE_FAILED: Final = "failed to obtained gpu usage"  # the peer's text, as it is


class Nvml(Protocol):
    """The part of `pynvml` that is used here; tests bring their own."""

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes: ...
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...
    def nvmlDeviceGetMigMode(self, handle: Any) -> list[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any: ...


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU or a MIG slice; `index` is what the API calls its id."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    is_slice: bool = False

    @property
    def gpu_id(self) -> int:
        """The index in the eyes of a worker placed here."""
        return 0 if self.is_slice else self.index


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """What `describe` shows of a device; a figure that the GPU does not keep is None."""

    index: int
    gpu_percent: int | None
    memory_percent: int | None
    memory_used_bytes: int

    def text(self) -> str:
        """The peer's one-line form of `nvidia-smi`."""
        return (
            f"gpuId::{self.index} "
            f"utilization.gpu [%]::{_percent(self.gpu_percent)} "
            f"utilization.memory [%]::{_percent(self.memory_percent)} "
            f"memory.used [MiB]::{self.memory_used_bytes >> 20} MiB"
        )


def open_nvml() -> Nvml | None:
    """NVML, ready to use, or None where there is no NVIDIA driver."""
    try:
        # The package takes megabytes before it finds out that this is missing.
        ctypes.CDLL(_LIBRARY)
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # the package, the library or the driver is missing or broken
        log.debug("no nvml", reason=str(error))
        return None
    return cast(Nvml, pynvml)


def discover(
    number_of_gpu: int | None, environ: Mapping[str, str], nvml: Nvml | None = None
) -> tuple[Device, ...]:
    """The devices workers may be placed on, in the order handlers see them.

    Args:
        number_of_gpu: The setting: at most that many; None for all, 0 for
            none (NVML is then not even opened).
    """
    if number_of_gpu == 0:
        return ()
    nvml = nvml or open_nvml()
    if nvml is None:
        return ()
    try:
        found = list(_visible(_physical(nvml), environ.get(VISIBLE)))
        slices = [piece for gpu in found for piece in gpu.pieces]
        devices = tuple(_device(nvml, index, piece) for index, piece in enumerate(slices))
    except Exception as error:  # a driver that answers nonsense means no GPUs, not no server
        log.warning("gpus not usable", reason=f"{type(error).__name__}: {error}")
        return ()
    return devices if number_of_gpu is None else devices[: max(0, number_of_gpu)]


def usage(device: Device, nvml: Nvml | None = None) -> GpuUsage | None:
    """How busy a device is right now, or None when it cannot be read."""
    nvml = nvml or open_nvml()
    if nvml is None:
        return None
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(device.uuid)
        used = int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
    except Exception as error:
        log.warning("gpu usage not readable", device=device.uuid, reason=str(error))
        return None
    try:
        rates = nvml.nvmlDeviceGetUtilizationRates(handle)
        percents = int(rates.gpu), int(rates.memory)
    except Exception:  # slices have memory of their own, but no utilisation
        return GpuUsage(device.index, None, None, used)
    return GpuUsage(device.index, *percents, used)


def usage_text(device: Device | None, nvml: Nvml | None = None) -> str:
    """`gpuUsage` of a worker: the figures, or the peer's words for none."""
    if device is None:
        return USAGE_ON_CPU
    found = usage(device, nvml)
    return USAGE_FAILED if found is None else found.text()


# -- what CUDA would see ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Piece:
    handle: Any
    uuid: str
    is_slice: bool


@dataclass(frozen=True, slots=True)
class _Gpu:
    uuid: str
    #: Its MIG slices, or itself.
    pieces: tuple[_Piece, ...]


def _physical(nvml: Nvml) -> list[_Gpu]:
    gpus = []
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        whole = _Piece(handle, uuid, False)
        gpus.append(_Gpu(uuid, tuple(_slices(nvml, handle)) or (whole,)))
    return gpus


def _slices(nvml: Nvml, handle: Any) -> Iterator[_Piece]:
    try:
        is_mig = bool(nvml.nvmlDeviceGetMigMode(handle)[0])
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if is_mig else 0
    except Exception:  # a GPU without MIG refuses the question
        return
    for index in range(most):
        try:
            piece = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except Exception:  # not every slot is cut
            continue
        yield _Piece(piece, _text(nvml.nvmlDeviceGetUUID(piece)), True)


def _visible(gpus: list[_Gpu], wanted: str | None) -> Iterator[_Gpu]:
    """Apply CUDA_VISIBLE_DEVICES by CUDA's rules.

    The first entry that names nothing (as -1 does) hides itself and what
    follows; an entry that occurs twice hides everything.
    """
    if wanted is None:
        yield from gpus
        return
    chosen: list[_Gpu] = []
    for entry in wanted.split(","):
        gpu = _named(gpus, entry.strip())
        if gpu is None:
            break
        if any(piece in other.pieces for other in chosen for piece in gpu.pieces):
            return
        chosen.append(gpu)
    yield from chosen


def _named(gpus: list[_Gpu], entry: str) -> _Gpu | None:
    """An entry is an index, or the unambiguous start of a UUID."""
    if entry.isascii() and entry.isdigit():
        index = int(entry)
        return gpus[index] if index < len(gpus) else None
    if entry.startswith("GPU-"):
        found = [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
    elif entry.startswith("MIG-"):
        found = [
            _Gpu(piece.uuid, (piece,))
            for gpu in gpus
            for piece in gpu.pieces
            if piece.is_slice and piece.uuid.startswith(entry)
        ]
    else:
        return None
    return found[0] if len(found) == 1 else None


def _device(nvml: Nvml, index: int, piece: _Piece) -> Device:
    memory = int(nvml.nvmlDeviceGetMemoryInfo(piece.handle).total)
    name = _text(nvml.nvmlDeviceGetName(piece.handle))
    return Device(index, piece.uuid, name, memory, piece.is_slice)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _percent(value: int | None) -> str:
    return "[N/A]" if value is None else f"{value} %"
