"""What describe says of a version's workers by device: the groups of its pool.

Of a version with one group that is spread over several devices, each has the
share that spreading evenly would give it.
"""

from __future__ import annotations

from typing import Any

from stoker.supervisor.device_groups import Group, even_groups
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.placement import groups as neighbours
from stoker.supervisor.served import Served
from stoker.supervisor.versions import VersionSpec


def describe_groups(served: Served, places: DevicePlaces) -> list[dict[str, Any]]:
    """One for each device that the version may use; workers by their numbers."""
    crew = served.crew
    groups = crew.groups
    if groups[0].device is None and (devices := first_devices(served.spec, places)):
        groups = even_groups(devices, crew.min_workers, crew.max_workers)
    numbers: dict[int | None, list[int]] = {group.device: [] for group in groups}
    for slot in crew.slots:
        if slot.worker is not None:
            numbers.setdefault(slot.worker.device, []).append(slot.number)
    known = {group.device: group for group in groups}
    return [
        _describe(known.get(device, Group(device, 0, 0)), workers, places)
        for device, workers in numbers.items()
    ]


def first_devices(spec: VersionSpec, places: DevicePlaces) -> tuple[int, ...]:
    """The devices that workers of a version may be on, or the first of each group of neighbours."""
    if spec.device_type != "gpu":
        return ()
    span = max(1, spec.parallel_level)
    found = neighbours(spec.device_ids, len(places.devices), span)
    return tuple(dict.fromkeys(group[0] for group in found))


def _describe(group: Group, workers: list[int], places: DevicePlaces) -> dict[str, Any]:
    device = places.device(group.device)
    return {
        "gpu_id": None if device is None else device.index,
        "min_workers": group.min_workers,
        "max_workers": group.max_workers,
        "workers": workers,
    }
