"""The host's devices and who is placed on them: state around the pure `placement`."""

from __future__ import annotations

from stoker.supervisor import placement
from stoker.supervisor.devices import Device
from stoker.supervisor.versions import VersionSpec


class DevicePlaces:
    """Answers a crew's question "where does this worker go" (`supply.Devices`)."""

    def __init__(self, devices: tuple[Device, ...]) -> None:
        self.devices = devices
        self._state = placement.empty(len(devices))

    def place(self, worker_id: int, spec: VersionSpec) -> int | None:
        return self._place(_request(worker_id, spec))

    def place_on(self, worker_id: int, spec: VersionSpec, device: int) -> int | None:
        """On this one, whatever is there already."""
        return self._place(_request(worker_id, spec)._replace(device=device))

    def _place(self, request: placement.Request) -> int | None:
        placed, self._state = placement.place(self._state, request)
        return placed.device

    def place_on_cpu(self, worker_id: int, spec: VersionSpec) -> None:
        request = _request(worker_id, spec)._replace(is_gpu=False)
        _, self._state = placement.place(self._state, request)

    def has_gpu(self, spec: VersionSpec, index: int) -> bool:
        """The first `number_gpu` workers of a crew, as far as there is a GPU for each."""
        if spec.device_type == "cpu" or spec.number_gpu is None:
            return spec.device_type != "cpu"
        return index < min(spec.number_gpu, len(spec.device_ids) or len(self.devices))

    def keep(self, worker_id: int, spec: VersionSpec, uuids: tuple[str, ...]) -> int | None:
        """Where a worker is already, by UUIDs.  Raises LookupError."""
        indices = {device.uuid: index for index, device in enumerate(self.devices)}
        devices = tuple(indices[uuid] for uuid in uuids)
        request = _request(worker_id, spec)
        if not devices and spec.number_gpu is not None:
            request = request._replace(is_gpu=False)
        placed, self._state = placement.keep(self._state, request, devices)
        return placed.device

    def of_worker(self, worker_id: int) -> tuple[Device, ...]:
        """All devices of a placed worker; () on the CPU."""
        placed = self._state.placed.get(worker_id)
        return () if placed is None else tuple(self.devices[index] for index in placed.devices)

    def release(self, worker_id: int) -> None:
        self._state = placement.release(self._state, worker_id)

    def device(self, index: int | None) -> Device | None:
        return None if index is None else self.devices[index]


def _request(worker_id: int, spec: VersionSpec) -> placement.Request:
    is_gpu = spec.device_type != "cpu"
    span = max(1, spec.parallel_level)
    return placement.Request(worker_id, spec.key, is_gpu, spec.device_ids, span)
